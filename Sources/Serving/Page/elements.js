// Elements and numbers. Text always becomes a text node: nothing here reads markup.

/** Creates an element with attributes, and with children that are elements or text. */
export function element(tag, attributes = {}, ...children) {
  return build(document.createElement(tag), attributes, children)
}

/** The same for SVG. */
export function shape(tag, attributes = {}, ...children) {
  return build(document.createElementNS('http://www.w3.org/2000/svg', tag), attributes, children)
}

function build(node, attributes, children) {
  for (const [name, value] of Object.entries(attributes)) {
    if (value === undefined || value === null || value === false) continue
    node.setAttribute(name, value === true ? '' : String(value))
  }
  node.append(...children.filter((child) => child !== undefined && child !== null))
  return node
}

export function find(id) {
  return document.getElementById(id)
}

/** A whole number with its digits in groups. */
export function whole(number) {
  return Math.round(number).toLocaleString('en').replaceAll(',', '\u202f')
}

/** A number with about three digits. */
export function short(number) {
  if (!Number.isFinite(number)) return '–'
  if (number === 0) return '0'
  if (number >= 100) return whole(number)
  return number.toFixed(number >= 10 ? 1 : 2)
}

/** A time in nanoseconds, in the unit that suits it. */
export function time(nanoseconds) {
  if (nanoseconds === 0) return '0'
  if (nanoseconds >= 1e9) return `${short(nanoseconds / 1e9)} s`
  if (nanoseconds >= 1e6) return `${short(nanoseconds / 1e6)} ms`
  return `${short(nanoseconds / 1e3)} µs`
}

export function percent(part) {
  return `${part > 0 && part < 0.01 ? '<1' : Math.round(100 * part)} %`
}

export function plural(count, noun) {
  return `${whole(count)} ${noun}${count === 1 ? '' : 's'}`
}

/**
 * A table whose cells on narrow screens repeat their column's name; the roles stay when its rows become blocks there. Cells
 * are elements or text.
 */
export function table(caption, columns, rows) {
  const head = element('tr', { role: 'row' },
    ...columns.map((column) => element('th', { scope: 'col', role: 'columnheader' }, column)))
  const body = rows.map((cells) => element('tr', { role: 'row' }, ...cells.map((cell, index) => index === 0
    ? element('th', { scope: 'row', role: 'rowheader' }, cell)
    : element('td', { role: 'cell', 'data-label': columns[index] }, cell))))
  return element('table', { role: 'table' }, element('caption', { class: 'unseen' }, caption),
    element('thead', { role: 'rowgroup' }, head), element('tbody', { role: 'rowgroup' }, ...body))
}

/** A bar of parts, each a class and a share of the whole, with a text for those who do not see it. */
export function bar(parts, text) {
  const node = element('span', { class: 'bar', role: 'img', 'aria-label': text, title: text })
  for (const [name, share] of parts) {
    if (!(share > 0)) continue
    const piece = element('span', { class: name })
    piece.style.width = `${Math.min(100, 100 * share)}%`
    node.append(piece)
  }
  return node
}
