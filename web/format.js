// Words and small pieces of the page: times, names, colours. Pure, except that it makes DOM nodes.

import { setText } from './stay.js';

const time = new Intl.DateTimeFormat(undefined, { hour: '2-digit', minute: '2-digit' });
const weekday = new Intl.DateTimeFormat(undefined, { weekday: 'long' });
const weekdayShort = new Intl.DateTimeFormat(undefined, { weekday: 'short' });
const dayOfYear = new Intl.DateTimeFormat(undefined, { weekday: 'long', day: 'numeric', month: 'long' });
const dayOfAny = new Intl.DateTimeFormat(undefined, { day: 'numeric', month: 'long', year: 'numeric' });
const short = new Intl.DateTimeFormat(undefined, { day: 'numeric', month: 'short' });

const ONLY_EMOJI = /^(?:\p{Extended_Pictographic}[\p{Emoji_Modifier}\u200d\ufe0f\p{Extended_Pictographic}]*\s*){1,3}$/u;

/** House colours; the rest keep apart those who would share one. Must match `data-hue` in base.css. */
const HUES = 6;
const HOUSES = { eleganza: 0, 'avant-garde': 1, butch: 2 };

export const clockTime = (at) => time.format(new Date(at));

/** A key that is the same for all moments of one day here. */
export const dayKey = (at) => new Date(at).toDateString();

const daysAgo = (at) => Math.round((new Date().setHours(0, 0, 0, 0) - new Date(at).setHours(0, 0, 0, 0)) / 86_400_000);

/** The heading over a day: Today, Yesterday, Tuesday, Tuesday 4 November, 4 November 2024. */
export function dayName(at) {
  const ago = daysAgo(at);
  if (ago === 0) return 'Today';
  if (ago === 1) return 'Yesterday';
  if (ago > 1 && ago < 7) return weekday.format(new Date(at));
  return new Date(at).getFullYear() === new Date().getFullYear() ? dayOfYear.format(new Date(at)) : dayOfAny.format(new Date(at));
}

/** The time in a list: 18:42, Tue, 4 Nov. */
export function listTime(at) {
  if (!at) return '';
  const ago = daysAgo(at);
  if (ago <= 0) return clockTime(at);
  return ago < 7 ? weekdayShort.format(new Date(at)) : short.format(new Date(at));
}

/** A name, or somebody's words, inside a sentence of ours: neither turns the other's direction (Unicode UAX #9, FSI and PDI). */
export const isolate = (words) => `\u2068${words}\u2069`;

/** What a thread is called by those in it. */
export const threadName = ({ row }) => row.peer?.displayName ?? row.name ?? 'Conversation';

export function initials(name) {
  const words = (name ?? '').replace(/^House of (the )?/i, '').split(/[\s-]+/).filter((word) => /^[\p{L}\p{N}]/u.test(word));
  return [...(words[0] ?? '?')][0] + ([...(words[1] ?? '')][0] ?? '');
}

/** One of the colours, the same for the same id; a house has its own. */
export function hue(id, name = '') {
  const house = Object.keys(HOUSES).find((key) => name.toLowerCase() === `house of ${key}`);
  if (house !== undefined) return HOUSES[house];
  let sum = 0;
  for (const char of id ?? '') sum = (sum * 31 + char.codePointAt(0)) >>> 0;
  return sum % HUES;
}

export function paintAvatar(element, id, name, isPerson) {
  setText(element, initials(name));
  element.dataset.hue = hue(id, name);
  element.classList.toggle('person', isPerson);
}

export const onlyEmoji = (text) => text.length <= 24 && ONLY_EMOJI.test(text);

/** What a system message says: its content is a stable key with parameters. */
export function systemText(content) {
  const words = { 'thread.created': 'opened this conversation', 'member.joined': 'joined', 'member.left': 'left',
    'thread.renamed': 'renamed this conversation', 'thread.archived': 'closed this conversation' };
  let key = content ?? '';
  try {
    key = JSON.parse(key).key ?? key;
  } catch {
    // A bare key.
  }
  return words[key] ?? key.replace(/[._]/g, ' ');
}
