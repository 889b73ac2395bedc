// What a person is at stays while the page is painted anew: the focus, the text that is selected.

/** Sets a text only where it is another one: a text node made anew loses the selection in it. */
export function setText(element, text) {
  if (element.textContent !== text) element.textContent = text;
}

/**
 * Hides or shows an element. Whoever has the focus in what is hidden is taken to `refuge`, not out of the page.
 * @param {Element | (() => void)} refuge where to, or what takes them there
 */
export function hide(element, hidden, refuge) {
  const inside = hidden && !element.hidden && element.contains(document.activeElement);
  element.hidden = hidden;
  if (inside) take(refuge);
}

/** Removes elements; whoever has the focus in one of them is taken to `refuge`. */
export function remove(elements, refuge) {
  const inside = elements.some((element) => element.contains(document.activeElement));
  for (const element of elements) element.remove();
  if (inside) take(refuge);
}

/** Puts the children of `list` in this order. One that is moved loses the focus to the browser, and is given it back. */
export function arrange(list, items) {
  const { activeElement } = document;
  const inside = list.contains(activeElement);
  items.forEach((item, index) => {
    if (list.children[index] !== item) list.insertBefore(item, list.children[index] ?? null);
  });
  if (inside && activeElement !== document.activeElement && list.contains(activeElement)) activeElement.focus({ preventScroll: true });
}

function take(refuge) {
  if (typeof refuge === 'function') refuge();
  else refuge.focus({ preventScroll: true });
}
