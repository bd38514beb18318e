// The view of the ranks: figures once a second, a step's timeline, the KV pages, the drawing of the layout.

import { bar, element, find, percent, plural, short, table, whole } from './elements.js'
import { ServerError, getBlob, getJSON } from './server.js'
import { Timeline } from './timeline.js'

const interval = 1000
const axes = ['pipeline', 'data', 'context', 'tensor']

export class Ranks {
  #isShown = false
  #run = 0

  constructor() {
    this.timeline = new Timeline()
    document.addEventListener('visibilitychange', () => this.watch())
  }

  set isShown(isShown) {
    this.#isShown = isShown
    this.watch()
  }

  /** Reads the figures once a second for as long as they are visible. */
  async watch() {
    const run = ++this.#run
    const isWatched = () => run === this.#run && this.#isShown && !document.hidden
    while (isWatched()) {
      const began = performance.now()
      try {
        const now = await getJSON('page/ranks')
        if (!isWatched()) return
        this.show(now)
        if (now.steps !== this.stepsOfTimeline) {
          const timeline = await getJSON('page/timeline')
          if (!isWatched()) return
          this.stepsOfTimeline = now.steps
          this.timeline.take(timeline, now.ranks)
        }
        if (!this.hasDrawing) await this.draw(now.layout)
        this.tell(now.failure ? `The engine has failed: ${now.failure}`
          : now.draining ? 'The server is shutting down and takes no new requests.' : '')
      } catch (error) {
        if (!(error instanceof ServerError)) throw error
        this.tell(error.message)
        if (error.status === 401) return
      }
      await new Promise((resolve) => setTimeout(resolve, Math.max(100, began + interval - performance.now())))
    }
  }

  tell(text) {
    find('ranks-problem').textContent = text
    find('ranks-problem').hidden = text === ''
  }

  async draw(layout) {
    try {
      const drawing = await getBlob('page/layout.svg')
      this.hasDrawing = true
      find('layout').replaceChildren(
        element('img', { src: URL.createObjectURL(drawing), alt: `Drawing of ${layout}` }))
    } catch (error) {
      if (!(error instanceof ServerError)) throw error
      // There is none in some servers, and asking again does not change that.
      this.hasDrawing = error.status === 404
      find('layout').replaceChildren(element('p', { class: 'quiet' }, error.message))
    }
  }

  show(now) {
    const rates = this.rates(now)
    this.showTiles(now, rates)
    this.showRanks(now, rates)
    this.showPages(now)
  }

  /**
   * What happened for each second between the last change and now. Ranks report a step when it has ended, so that between
   * two ends of a long step the last rates stay.
   */
  rates(now) {
    const before = this.before
    if (!before || now.restarts !== before.restarts || now.steps < before.steps
        || now.seconds <= before.seconds) {
      this.before = now
      this.lastRates = null
    } else if (now.steps > before.steps) {
      const seconds = now.seconds - before.seconds
      this.before = now
      this.lastRates = {
        steps: (now.steps - before.steps) / seconds,
        prompt: (now.prompt_tokens - before.prompt_tokens) / seconds,
        generated: (now.generated_tokens - before.generated_tokens) / seconds,
        ranks: now.ranks.map((rank, index) => rankRates(rank, before.ranks[index], seconds)),
      }
    } else if (now.running === 0) {
      this.before = now
      this.lastRates = null
    }
    return this.lastRates
  }

  showTiles(now, rates) {
    const tiles = [
      ['Running', whole(now.running), plural(now.running, 'request')],
      ['Queue', whole(now.queued), 'waiting'],
      ['Generated', short(rates?.generated ?? 0), 'tokens/s'],
      ['Prompts', short(rates?.prompt ?? 0), 'tokens/s'],
      ['Steps', short(rates?.steps ?? 0), `/s, ${whole(now.steps)} in all`],
    ]
    find('tiles').replaceChildren(...tiles.map(([name, value, unit]) => element('div', {},
      element('dt', {}, name), element('dd', {}, element('strong', {}, value), ' ',
        element('span', { class: 'quiet small' }, name === 'Running' ? '' : unit)))))
  }

  showRanks(now, rates) {
    const used = axes.filter((axis) => now.ranks.some((rank) => rank.place[axis] > 0))
    const most = Math.max(1, ...now.ranks.map((rank) => rank.last_rows))
    const rows = now.ranks.map((rank, index) => {
      const rate = rates?.ranks[index] ?? { busy: 0, collective: 0, waiting: 0, rows: 0 }
      const words = `${percent(rate.busy)} busy, ${percent(rate.collective)} in collectives, `
        + `of it ${percent(rate.waiting)} waiting`
      return [
        element('span', {}, swatch(rank.colour), ` ${rank.rank}`),
        used.map((axis) => `${axis} ${rank.place[axis]}`).join(' · ') || 'the only rank',
        element('span', { class: 'measure' }, bar([['rows', rank.last_rows / most]], plural(rank.last_rows, 'row')),
          element('span', { class: 'number' }, whole(rank.last_rows))),
        short(rate.rows),
        element('span', { class: 'measure' },
          bar([['busy', rate.busy], ['collective', rate.collective - rate.waiting], ['waiting', rate.waiting]], words),
          element('span', { class: 'number small' },
            `${percent(rate.busy)} / ${percent(rate.collective)} / ${percent(rate.waiting)}`)),
        whole(rank.owned_tokens),
      ]
    })
    find('rank-table').replaceChildren(table('What each rank does',
      ['Rank', 'Place', 'Rows of the last step', 'Rows/s', 'Time: busy / collectives / of these waiting',
        'Tokens whose keys it owns'], rows))
  }

  showPages(now) {
    const { total, used, cached, free, tokens } = now.pages
    const share = (count) => (total > 0 ? count / total : 0)
    const words = `${whole(used)} used by requests, ${whole(cached)} kept for later prompts, ${whole(free)} free`
    const owners = new Map()
    for (const rank of now.ranks) {
      const key = `${rank.place.data}/${rank.owner}`
      const owner = owners.get(key) ?? { data: rank.place.data, index: rank.owner, ranks: [], tokens: rank.owned_tokens }
      owner.ranks.push(rank.rank)
      owners.set(key, owner)
    }
    const groups = new Set([...owners.values()].map((owner) => owner.data)).size
    const most = Math.max(1, ...[...owners.values()].map((owner) => owner.tokens))
    const rows = [...owners.values()].map((owner) => [
      [groups > 1 ? `data ${owner.data}` : null, `owner ${owner.index}`].filter(Boolean).join(' · '),
      owner.ranks.join(', '),
      element('span', { class: 'measure' }, bar([['rows', owner.tokens / most]], plural(owner.tokens, 'token')),
        element('span', { class: 'number' }, whole(owner.tokens))),
      short(owner.tokens / tokens),
    ])
    const rule = now.owners > 1
      ? `Token t of a request belongs to owner ${now.owner_unit > 1 ? `⌊t / ${now.owner_unit}⌋` : 't'} mod ${now.owners}.`
      : 'Keys are not divided: there is one owner.'
    find('pages').replaceChildren(
      bar([['used', share(used)], ['cached', share(cached)]], words),
      element('p', {}, `${whole(total)} pages of ${tokens} tokens: `, swatch(null, 'used'), `${whole(used)} used by requests, `,
        swatch(null, 'cached'), `${whole(cached)} kept for later prompts, `, swatch(null, 'idle'), `${whole(free)} free. `, rule),
      table('KV pages of running requests for each owner',
        ['Owner', 'Ranks', 'Tokens of running requests', 'In pages'], rows))
  }
}

function rankRates(rank, before, seconds) {
  const [busy, collective, waiting] = ['busy_seconds', 'collective_seconds', 'waiting_seconds']
    .map((name) => Math.max(0, rank[name] - (before?.[name] ?? 0)))
  // The first step since a change may have begun before it.
  const whole = Math.max(seconds, busy + collective)
  return {
    busy: busy / whole, collective: collective / whole, waiting: Math.min(waiting, collective) / whole,
    rows: (rank.rows - (before?.rows ?? 0)) / seconds,
  }
}

function swatch(colour, name = '') {
  const node = element('span', { class: `swatch ${name}` })
  if (/^#[0-9a-f]{6}$/.test(colour ?? '')) node.style.backgroundColor = colour
  return node
}
