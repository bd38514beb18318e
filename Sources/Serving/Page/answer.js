// One answer of the model while it is written: reasoning, text, tool calls, and the probabilities of its tokens.

import { element, find, percent, plural, short, time } from './elements.js'

/** The tokens that each piece of text stands for. */
const tokensOf = new WeakMap()

export class Answer {
  constructor(log) {
    this.body = element('div', { class: 'body' })
    this.node = element('article', { class: 'message answer', 'aria-label': 'Answer', 'aria-busy': true }, this.body)
    log.append(this.node)
    this.text = ''
    this.reasoning = ''
    this.calls = []
    this.started = performance.now()
    this.pending = []
    this.count = 0
  }

  /** Adds a chunk of the stream. */
  add(chunk) {
    if (chunk.usage) this.usage = chunk.usage
    const choice = chunk.choices?.[0]
    // The settings may ask for several answers; one is shown.
    if (!choice || choice.index > 0) return
    if (choice.finish_reason) this.finish = choice.finish_reason
    const tokens = choice.logprobs?.content ?? []
    if (tokens.length > 0) {
      this.first ??= performance.now()
      this.last = performance.now()
    }
    this.count += tokens.length
    this.pending.push(...tokens)
    const delta = choice.delta ?? {}
    if (delta.reasoning_content) this.addReasoning(delta.reasoning_content)
    if (delta.content) this.addContent(delta.content)
    for (const call of delta.tool_calls ?? []) this.addCall(call)
  }

  addReasoning(text) {
    this.reasoning += text
    if (!this.thought) {
      this.summary = element('summary', {}, 'Thinking …')
      const block = element('details', { class: 'reasoning', open: true }, this.summary)
      this.thought = this.textBlock(block, 'Reasoning')
      this.body.append(block)
    }
    this.write(this.thought, text)
  }

  addContent(text) {
    this.endReasoning()
    this.text += text
    if (!this.current) this.current = this.textBlock(this.body, 'Answer')
    this.write(this.current, text)
  }

  addCall(part) {
    this.endReasoning()
    this.current = null
    this.pending = []
    const index = part.index ?? this.calls.length
    let call = this.calls[index]
    if (!call) {
      call = { id: part.id, name: part.function?.name ?? '', arguments: '' }
      this.calls[index] = call
      call.shown = element('pre', {})
      call.node = element('section', { class: 'call', 'aria-label': `Tool call ${call.name}` },
        element('h3', {}, 'Tool call ', element('code', {}, call.name)), call.shown)
      this.body.append(call.node)
    }
    call.arguments += part.function?.arguments ?? ''
    call.shown.textContent = call.arguments
  }

  endReasoning() {
    if (!this.thought || this.thoughtEnded) return
    this.thoughtEnded = true
    this.summary.textContent = `Thought for ${time(1e6 * (performance.now() - this.started))}`
    this.summary.parentElement.open = false
    this.current = null
  }

  textBlock(parent, name) {
    const block = element('div', {
      class: 'text', role: 'group', 'aria-label': `${name}. Arrow keys move between its tokens.`,
    })
    parent.append(block)
    return block
  }

  /** Shows a text as its tokens. If it is not just theirs, for instance of half a character, it is one piece. */
  write(block, text) {
    const tokens = this.pending
    this.pending = []
    const isWhole = tokens.length > 0 && tokens.map((token) => token.token).join('') === text
    const pieces = isWhole ? tokens.map((token) => [token.token, [token]]) : [[text, tokens]]
    for (const [words, own] of pieces) {
      if (own.length === 0) {
        block.append(words)
        continue
      }
      const least = Math.exp(Math.min(...own.map((token) => token.logprob)))
      const doubt = least < 0.2 ? ' unlikely' : least < 0.5 ? ' unsure' : ''
      const hasFirst = block.querySelector('.token') !== null
      const piece = element('span', { class: `token${doubt}`, tabindex: hasFirst ? -1 : 0 }, words)
      tokensOf.set(piece, own)
      block.append(piece)
    }
  }

  /** Ends the answer. */
  end() {
    this.endReasoning()
    this.node.removeAttribute('aria-busy')
    for (const call of this.calls) {
      try {
        call.shown.textContent = JSON.stringify(JSON.parse(call.arguments), null, 2)
      } catch {
        // It was cut, and stays as it is.
      }
    }
    const line = this.costs()
    if (line) this.node.append(element('p', { class: 'costs quiet small' }, line))
  }

  fail(message) {
    this.node.append(element('p', { class: 'error', role: 'alert' }, message))
  }

  costs() {
    const parts = []
    // An answer that was stopped has no usage.
    const count = this.usage?.completion_tokens ?? this.count
    if (this.usage) {
      const cached = this.usage.prompt_tokens_details?.cached_tokens ?? 0
      parts.push(plural(this.usage.prompt_tokens, 'prompt token') + (cached > 0 ? ` (${cached} cached)` : ''))
    }
    if (this.first) {
      parts.push(plural(count, 'new token'))
      parts.push(`first token after ${time(1e6 * (this.first - this.started))}`)
      // Short answers may arrive in one piece, which says nothing about their speed.
      const milliseconds = this.last - this.first
      if (count > 1 && milliseconds > 100) parts.push(`${short(1000 * (count - 1) / milliseconds)} tokens/s`)
    }
    const ends = { length: 'cut at the limit of tokens', stopped: 'stopped' }
    if (ends[this.finish]) parts.push(ends[this.finish])
    return parts.join(' · ')
  }

  /** The answer as a message of the conversation. Calls that are not complete are left out. */
  get message() {
    const message = { role: 'assistant', content: this.text }
    if (this.reasoning) message.reasoning_content = this.reasoning
    if (this.finish === 'tool_calls') {
      message.tool_calls = this.calls.map((call) => ({
        id: call.id, type: 'function', function: { name: call.name, arguments: call.arguments },
      }))
    }
    return message
  }

  get isEmpty() {
    return this.text === '' && this.reasoning === '' && this.calls.length === 0
  }
}

/** Shows the probabilities of the token that is pointed at or focused, and moves between tokens by arrow keys. */
export function explainTokens(log) {
  const tip = find('tip')
  let shown = null

  function hide() {
    shown?.removeAttribute('aria-describedby')
    shown = null
    tip.hidden = true
  }

  function show(piece) {
    if (shown === piece) return
    hide()
    shown = piece
    tip.replaceChildren(...tokensOf.get(piece).map(explanation))
    tip.hidden = false
    piece.setAttribute('aria-describedby', 'tip')
    const place = piece.getClientRects()[0] ?? piece.getBoundingClientRect()
    const own = tip.getBoundingClientRect()
    const left = Math.max(8, Math.min(place.left, innerWidth - own.width - 8))
    const below = place.bottom + 6
    tip.style.left = `${left}px`
    tip.style.top = `${below + own.height > innerHeight ? Math.max(8, place.top - own.height - 6) : below}px`
  }

  const tokenAt = (event) => event.target.closest?.('.token')
  log.addEventListener('pointerover', (event) => {
    const piece = tokenAt(event)
    if (piece) show(piece)
    else if (!log.contains(document.activeElement?.closest?.('.token'))) hide()
  })
  log.addEventListener('pointerleave', hide)
  log.addEventListener('scroll', hide)
  log.addEventListener('focusin', (event) => { if (tokenAt(event)) show(tokenAt(event)) })
  log.addEventListener('focusout', hide)
  log.addEventListener('keydown', (event) => {
    const piece = tokenAt(event)
    if (!piece) return
    if (event.key === 'Escape') {
      // Without a tip it stops the answer.
      if (!tip.hidden) event.stopPropagation()
      return hide()
    }
    const pieces = [...piece.closest('.text').querySelectorAll('.token')]
    const steps = { ArrowRight: 1, ArrowDown: 1, ArrowLeft: -1, ArrowUp: -1, Home: -pieces.length, End: pieces.length }
    if (!(event.key in steps)) return
    event.preventDefault()
    const index = pieces.indexOf(piece) + steps[event.key]
    const next = pieces[Math.max(0, Math.min(pieces.length - 1, index))]
    piece.tabIndex = -1
    next.tabIndex = 0
    next.focus()
    if (next === piece) show(piece)
  })
}

function explanation(token) {
  const probability = Math.exp(token.logprob)
  const rows = (token.top_logprobs ?? []).map((other) => {
    const share = element('span', { class: 'share' })
    share.style.width = `${100 * Math.exp(other.logprob)}%`
    return element('li', { class: other.token === token.token ? 'own' : false },
      share, element('code', {}, written(other.token)), element('span', {}, percent(Math.exp(other.logprob))))
  })
  return element('div', {},
    element('p', {}, element('code', {}, written(token.token)), ` ${percent(probability)}`,
      element('span', { class: 'quiet' }, ` log-probability ${token.logprob.toFixed(3)}`)),
    rows.length > 0 ? element('ol', { 'aria-label': 'Most probable tokens' }, ...rows) : null)
}

/** A token with its spaces and line ends made visible. */
function written(text) {
  return JSON.stringify(text)
}
