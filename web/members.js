// Who is in a conversation: the list, adding and removing for its admins, leaving.

import { isolate, paintAvatar, threadName } from './format.js';
import { arrange, hide, remove, setText } from './stay.js';
import { errorText } from './words.js';

const ROLES = { ADMIN: 'Admin', MODERATOR: 'Moderator', MEMBER: '' };

const byId = (id) => document.getElementById(id);

export class Members {
  #haus;
  #add;
  #dialog = byId('members');
  #thread = null;
  #items = new Map();
  /** Whose button was pressed once: a profile, or `leave`. */
  #armed = null;

  /** @param {(thread: object) => void} add opens the search for people to let in */
  constructor(haus, add) {
    this.#haus = haus;
    this.#add = add;
    byId('members-close').addEventListener('click', () => this.#dialog.close());
    byId('members-add').addEventListener('click', () => {
      this.#dialog.close();
      this.#add(this.#thread);
    });
    byId('members-leave').addEventListener('click', () => {
      this.#twice('leave', () => this.#remove(this.#haus.profile.id));
    });
    byId('members-list').addEventListener('click', ({ target }) => {
      const button = target.closest('.person-remove');
      if (button) this.#twice(button.dataset.profileId, () => this.#remove(button.dataset.profileId));
    });
    this.#dialog.addEventListener('close', () => {
      this.#armed = null;
      this.#items.clear();
      byId('members-list').replaceChildren();
    });
    haus.on('thread', (id) => this.#dialog.open && id === this.#thread?.id && this.#paint());
    haus.on('people', () => this.#dialog.open && this.#paint());
    haus.on('removed', ({ threadId }) => threadId === this.#thread?.id && this.#dialog.close());
  }

  async open(threadId) {
    this.#thread = this.#haus.thread(threadId);
    if (this.#thread === null) return;
    byId('members-error').textContent = '';
    this.#paint();
    this.#dialog.showModal();
    byId('members-title').focus();
    await this.#refresh();
  }

  // The list one has is as old as the opening of the conversation.
  async #refresh() {
    const threadId = this.#thread.id;
    try {
      const { members } = await this.#haus.command('thread.open', { threadId, limit: 1 }, { repeat: false });
      if (this.#thread?.id !== threadId) return;
      this.#thread.members = new Map(members.map((member) => [member.profileId, member]));
      for (const { profileId, displayName, avatar } of members) this.#haus.people.learn({ id: profileId, displayName, avatar });
      this.#paint();
    } catch (error) {
      byId('members-error').textContent = errorText(error);
    }
  }

  // Items stay where they are, with the focus and the question on them: others join and leave at any moment.
  #paint() {
    const { row, members } = this.#thread;
    const grown = row.type === 'GROUP' || row.type === 'ANNOUNCE';
    const admin = grown && row.role === 'ADMIN';
    byId('members-title').textContent = threadName(this.#thread);
    byId('members-count').textContent = row.memberCount === 1 ? '1 person' : `${row.memberCount} people`;
    hide(byId('members-add'), !admin || row.isArchived, byId('members-title'));
    hide(byId('members-leave'), !grown, byId('members-title'));
    setText(byId('members-leave'), this.#armed === 'leave' ? 'Really leave?' : 'Leave');
    for (const profileId of [...this.#items.keys()]) if (!members.has(profileId)) this.#drop(profileId);
    arrange(byId('members-list'), [...members.values()].map((member) => {
      const item = this.#items.get(member.profileId) ?? this.#make(member.profileId);
      this.#fill(item, member, admin);
      return item;
    }));
    const rest = row.memberCount - members.size;
    byId('members-rest').hidden = rest <= 0;
    byId('members-rest').textContent = `and ${rest} more`;
  }

  #make(profileId) {
    const item = byId('member-template').content.firstElementChild.cloneNode(true);
    item.querySelector('.person-remove').dataset.profileId = profileId;
    this.#items.set(profileId, item);
    return item;
  }

  // Whoever worked on an item that goes is taken to the heading, not out of the dialog.
  #drop(profileId) {
    remove([this.#items.get(profileId)], byId('members-title'));
    this.#items.delete(profileId);
    if (this.#armed === profileId) this.#armed = null;
  }

  #fill(item, { profileId, displayName, role, nickname }, admin) {
    const selfId = this.#haus.profile?.id;
    const name = displayName ?? this.#haus.people.get(profileId)?.displayName ?? 'Somebody';
    paintAvatar(item.querySelector('.avatar'), profileId, name, true);
    setText(item.querySelector('.person-name bdi'), name);
    setText(item.querySelector('.person-self'), profileId === selfId ? ' (you)' : '');
    setText(item.querySelector('.person-more'), [nickname && isolate(nickname), ROLES[role]].filter(Boolean).join(' · '));
    const button = item.querySelector('.person-remove');
    const armed = this.#armed === profileId;
    hide(button, !admin || profileId === selfId, byId('members-title'));
    setText(button, armed ? 'Really remove?' : 'Remove');
    button.setAttribute('aria-label', armed ? `Really remove? ${isolate(name)}` : `Remove ${isolate(name)}`);
  }

  // What cannot be taken back is asked for twice, on the same button.
  #twice(key, act) {
    const sure = this.#armed === key;
    this.#armed = sure ? null : key;
    this.#paint();
    if (sure) act();
  }

  async #remove(profileId) {
    const threadId = this.#thread.id;
    byId('members-error').textContent = '';
    try {
      await this.#haus.request('DELETE', `/v1/threads/${threadId}/members/${profileId}`).catch((error) => {
        // Gone already: what was wanted.
        if (error.code !== 'not_found') throw error;
      });
      if (profileId === this.#haus.profile?.id) {
        this.#dialog.close();
        location.hash = '#/';
      } else await this.#refresh();
    } catch (error) {
      byId('members-error').textContent = errorText(error);
      this.#paint();
    }
  }
}
