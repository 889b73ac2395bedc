// Named notices to listeners. Nothing of the protocol lives here.
//
// A listener that throws does not keep the others from hearing: its error is reported asynchronously.

export class Emitter {
  #listeners = new Map();

  /** Calls `listener` on every `name`; returns a function that ends it. */
  on(name, listener) {
    if (!this.#listeners.has(name)) this.#listeners.set(name, new Set());
    this.#listeners.get(name).add(listener);
    return () => this.off(name, listener);
  }

  /** Calls `listener` on the next `name` only. */
  once(name, listener) {
    const end = this.on(name, (detail) => {
      end();
      listener(detail);
    });
    return end;
  }

  off(name, listener) {
    this.#listeners.get(name)?.delete(listener);
  }

  emit(name, detail) {
    for (const listener of [...(this.#listeners.get(name) ?? [])]) {
      try {
        listener(detail);
      } catch (error) {
        queueMicrotask(() => {
          throw error;
        });
      }
    }
  }
}
