// The timeline of one step: a lane for each rank, with its collectives, and in these the time spent waiting.

import { find, element, plural, shape, table, time, whole } from './elements.js'

const lane = 22
const gap = 6
const labels = 76
const foot = 22
const parts = new Set(['step', 'layer', 'choose', 'draft'])

export class Timeline {
  constructor() {
    this.isHeld = false
    find('hold').addEventListener('click', () => {
      this.isHeld = !this.isHeld
      find('hold').setAttribute('aria-pressed', String(this.isHeld))
      if (!this.isHeld && this.next) this.use(this.next)
    })
    find('zoom').addEventListener('input', () => this.draw())
    new ResizeObserver(() => this.draw()).observe(find('timeline'))
    find('timeline').addEventListener('pointerover', (event) => {
      const text = event.target.dataset?.text
      if (text) find('timeline-detail').textContent = text
    })
    this.explainAbsence()
  }

  explainAbsence() {
    find('timeline-caption').textContent = 'No step has been recorded yet: send a request.'
  }

  /** Shows the timeline of a step, unless another one is held. */
  take(timeline, ranks) {
    if (!timeline) return
    const figures = new Map(ranks.map((rank) => [rank.rank, rank]))
    this.next = { ...timeline, ranks: timeline.ranks.map((rank) => read(rank, timeline.names, figures.get(rank.rank))) }
    if (!this.isHeld) this.use(this.next)
  }

  use(step) {
    this.step = step
    findWaiting(step.ranks)
    const rows = Math.max(...[...stages(step.ranks).values()]
      .map((ranks) => ranks.reduce((sum, rank) => sum + rank.rows, 0)))
    find('timeline-caption').textContent =
      `Step ${whole(step.step)}: ${plural(step.requests, 'request')}, ${plural(rows, 'row')}, ${time(step.nanoseconds)}`
      + (step.ranks.some((rank) => rank.cut) ? '; only its first pieces' : '')
    this.showTables()
    this.draw()
  }

  showTables() {
    const ranks = this.step.ranks.map((rank) => {
      const collectives = sum(rank.collectives, 'length')
      const length = sum(rank.steps, 'length')
      return [`rank ${rank.rank}`, whole(rank.rows), time(length), time(Math.max(0, length - collectives)),
        time(collectives), time(sum(rank.collectives, 'waiting'))]
    })
    const names = [...new Set(this.step.ranks.flatMap((rank) => rank.collectives.map((piece) => piece.name)))]
    const collectives = names.map((name) => {
      const own = this.step.ranks.flatMap((rank) => rank.collectives.filter((piece) => piece.name === name))
      const count = Math.max(...this.step.ranks
        .map((rank) => rank.collectives.filter((piece) => piece.name === name).length))
      return [name, whole(count), time(sum(own, 'length') / this.step.ranks.length),
        time(sum(own, 'waiting') / this.step.ranks.length)]
    })
    find('timeline-tables').replaceChildren(
      table('The step, by rank', ['Rank', 'Rows', 'Step', 'Busy', 'Collectives', 'Of these waiting'], ranks),
      collectives.length > 0
        ? table('The step, by collective', ['Collective', 'Calls', 'Time of a rank', 'Of it waiting'], collectives)
        : element('p', { class: 'quiet' }, 'One rank has no collectives.'))
  }

  draw() {
    const box = find('timeline')
    if (!this.step || box.clientWidth === 0) return
    const width = Math.max(240, (box.clientWidth - 2) * Number(find('zoom').value))
    const scale = (width - labels - 8) / Math.max(1, this.step.nanoseconds)
    const x = (nanoseconds) => labels + nanoseconds * scale
    const height = this.step.ranks.length * (lane + gap) + foot
    const drawing = shape('svg', { width, height, 'aria-hidden': 'true' }, hatching())
    for (const [index, rank] of this.step.ranks.entries()) drawing.append(this.lane(rank, index * (lane + gap), x, scale))
    for (const tick of ticks(this.step.nanoseconds, (width - labels) / 90)) {
      if (x(tick) + 60 > width) continue
      drawing.append(
        shape('line', { x1: x(tick), x2: x(tick), y1: 0, y2: height - foot, class: 'tick' }),
        shape('text', { x: x(tick) + 3, y: height - 6, class: 'axis' }, time(tick)))
    }
    box.replaceChildren(drawing)
  }

  lane(rank, y, x, scale) {
    const group = shape('g', {}, shape('rect', { x: 0, y: y + 4, width: 12, height: 12, rx: 3, fill: rank.colour }),
      shape('text', { x: 18, y: y + 15, class: 'name' }, `rank ${rank.rank}`))
    const box = (name, begin, length, text) => group.append(shape('rect', {
      x: x(begin), y, width: Math.max(0.4, length * scale), height: lane, class: name, 'data-text': text,
      fill: name === 'hatched' ? 'url(#hatching)' : null,
    }))
    box('idle', 0, this.step.nanoseconds, `rank ${rank.rank}: no step`)
    for (const step of rank.steps) {
      box('busy', step.begin, step.length, `rank ${rank.rank}: step ${step.number}, ${time(step.length)}`)
    }
    for (const piece of rank.layers) {
      box('layer', piece.begin, piece.length,
        `rank ${rank.rank}: ${piece.name} ${piece.number < 0 ? '' : piece.number}, ${time(piece.length)}`)
    }
    for (const piece of merged(rank.collectives, 0.4 / scale)) {
      const text = `rank ${rank.rank}: ${piece.name}, ${time(piece.length)}, of it waiting ${time(piece.waiting)}`
      if (piece.waiting > 0) {
        box('waiting', piece.begin, piece.waiting, text)
        box('hatched', piece.begin, piece.waiting, text)
      }
      box('collective', piece.begin + piece.waiting, piece.length - piece.waiting, text)
    }
    return group
  }
}

/** Reads a rank's flat list of pieces. */
function read(rank, names, figures) {
  const result = { rank: rank.rank, rows: rank.rows, cut: rank.cut, stage: figures?.place.pipeline ?? 0 }
  result.colour = figures?.colour ?? 'none'
  Object.assign(result, { steps: [], layers: [], collectives: [] })
  for (let at = 0; at + 3 < rank.spans.length; at += 4) {
    const [name, number, begin, length] = rank.spans.slice(at, at + 4)
    const piece = { name: names[name] ?? '', number, begin, length, waiting: 0 }
    const list = piece.name === 'step' ? 'steps' : parts.has(piece.name) ? 'layers' : 'collectives'
    result[list].push(piece)
  }
  return result
}

function stages(ranks) {
  const all = new Map()
  for (const rank of ranks) all.set(rank.stage, [...(all.get(rank.stage) ?? []), rank])
  return all
}

/**
 * Splits each collective into waiting and the rest: the rank of the stage that spends least in it is the one that the
 * others have waited for.
 */
function findWaiting(ranks) {
  for (const members of stages(ranks).values()) {
    const calls = members.map((rank) => Map.groupBy(rank.collectives, (piece) => piece.name))
    for (const name of new Set(calls.flatMap((own) => [...own.keys()]))) {
      const lists = calls.map((own) => own.get(name) ?? [])
      if (lists.some((list) => list.length !== lists[0].length)) continue
      for (let call = 0; call < lists[0].length; call += 1) {
        const least = Math.min(...lists.map((list) => list[call].length))
        for (const list of lists) list[call].waiting = list[call].length - least
      }
    }
  }
}

/** Joins pieces that follow each other too closely to be seen apart. */
function merged(pieces, least) {
  const result = []
  for (const piece of pieces) {
    const last = result.at(-1)
    if (last && piece.length < least && piece.begin - (last.begin + last.length) < least) {
      last.length = piece.begin + piece.length - last.begin
      last.waiting += piece.waiting
      if (!last.name.includes(piece.name)) last.name += `, ${piece.name}`
    } else {
      result.push({ ...piece })
    }
  }
  return result
}

/** The pattern by which waiting is told apart without colours. */
function hatching() {
  return shape('defs', {}, shape('pattern', {
    id: 'hatching', width: 6, height: 6, patternUnits: 'userSpaceOnUse', patternTransform: 'rotate(45)',
  }, shape('rect', { width: 2, height: 6, class: 'hatch' })))
}

function sum(pieces, member) {
  return pieces.reduce((total, piece) => total + piece[member], 0)
}

/** Round times, about `count` of them. */
function ticks(length, count) {
  const raw = length / Math.max(1, count)
  const power = 10 ** Math.floor(Math.log10(Math.max(1, raw)))
  const unit = [1, 2, 5, 10].map((factor) => factor * power).find((candidate) => candidate >= raw) ?? raw
  const result = []
  for (let tick = 0; tick <= length; tick += unit) result.push(tick)
  return result
}
