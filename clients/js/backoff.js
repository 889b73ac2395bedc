// When to try again: what a close code asks for, and how long to wait (protocol, section 6). Pure: randomness comes in.

import { decode } from './text.js';

export const BASE_MS = 500;
export const CAP_MS = 30_000;

/** `spreadMs` until a `hello` has told another. */
export const DEFAULT_SPREAD_MS = 3_000;

/** After so many refused opens in a row, the reason is asked for over HTTP, which a browser can read. */
export const OPENS_BEFORE_TICKET = 3;

/**
 * Full jitter (Brooker, "Exponential Backoff and Jitter", AWS, 2015): uniform in [0, min(cap, base * 2^n)).
 * @param {number} failures failed tries so far, from 0
 */
export function jitterMs(failures, random) {
  return random() * Math.min(CAP_MS, BASE_MS * 2 ** Math.min(failures, 16));
}

/**
 * Milliseconds until the next try.
 * @param {{failures: number, code?: number, retryAfterMs?: number, spreadMs?: number, random: () => number}} state
 *   `failures`: tries since the last session that got through; 0 means that session has just ended.
 */
export function reconnectDelayMs({ failures, code, retryAfterMs = 0, spreadMs = DEFAULT_SPREAD_MS, random }) {
  const planned = failures > 0 ? jitterMs(failures - 1, random) : code === 4000 ? 0 : random() * spreadMs;
  return Math.max(planned, Number(retryAfterMs) || 0);
}

/** After the nth socket in a row that ended for a frame above the limit: at least so long, milliseconds. */
export function tooBigDelayMs(times) {
  return Math.min(CAP_MS, BASE_MS * 2 ** Math.min(times, 16));
}

/** `{c, ra}` of a close reason; empty when the reason is not ours. */
export function closeReason(text) {
  const reason = decode(text);
  return reason !== null && typeof reason === 'object' ? reason : {};
}

/**
 * What a close code asks of a client.
 * @returns {'reconnect' | 'refresh' | 'stop'} `refresh`: a new access token first
 */
export function closeAction(code) {
  if (code === 4401) return 'refresh';
  if (code >= 4400 && code <= 4499) return 'stop';
  return 'reconnect';
}
