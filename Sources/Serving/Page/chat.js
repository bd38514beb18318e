// The conversation, its settings and its requests.

import { Answer, explainTokens } from './answer.js'
import { element, find } from './elements.js'
import { ServerError, stream } from './server.js'

/** A setting that cannot be used, with the element that has it. */
class SettingError extends Error {
  constructor(id, message) {
    super(message)
    this.id = id
  }
}

export class Chat {
  constructor(info) {
    this.model = info.served_model_name
    this.topCount = Math.min(5, info.max_top_logprobs ?? 0)
    this.messages = []
    this.log = find('log')
    const temperature = info.default_sampling_params?.temperature
    if (temperature !== undefined) find('temperature').placeholder = `default: ${temperature}`
    explainTokens(this.log)
    this.listen()
    find('settings').open = matchMedia('(min-width: 60rem)').matches
    if (!find('chat').hidden) find('message').focus()
  }

  listen() {
    find('composer').addEventListener('submit', (event) => {
      event.preventDefault()
      this.say()
    })
    find('settings-form').addEventListener('submit', (event) => event.preventDefault())
    find('message').addEventListener('keydown', (event) => {
      if (event.key !== 'Enter' || event.shiftKey || event.isComposing) return
      event.preventDefault()
      this.say()
    })
    addEventListener('keydown', (event) => {
      if (event.key === 'Escape' && !find('chat').hidden) this.request?.abort()
    })
    find('stop').addEventListener('click', () => this.request?.abort())
    this.log.addEventListener('scroll', () => {
      this.isAtEnd = this.log.scrollHeight - this.log.scrollTop - this.log.clientHeight < 60
    })
    find('clear').addEventListener('click', () => this.clear())
    find('mark').addEventListener('change', () => this.log.classList.toggle('plain', !find('mark').checked))
  }

  clear() {
    this.request?.abort()
    this.messages = []
    this.open = null
    this.log.replaceChildren(find('greeting') ?? element('p', { class: 'greeting' }, 'A new conversation.'))
    find('message').focus()
  }

  /** Sends the text of the composer. */
  say() {
    const text = find('message').value
    if (text.trim() === '' || this.request) return
    const open = this.open
    const said = element('article', { class: 'message user', 'aria-label': 'You' }, text)
    this.ask([...this.takeResults(), { role: 'user', content: text }], () => {
      find('message').value = ''
      find('greeting')?.remove()
      this.log.append(said)
    }, () => {
      said.classList.add('dropped')
      if (find('message').value === '') find('message').value = text
      if (open) this.restoreResults(open)
    })
  }

  /** Has the model answer further messages; `failed` is called if they do not become part of the conversation. */
  async ask(added, accepted, failed) {
    // Another one begins if the conversation is cleared meanwhile.
    const messages = this.messages
    let body
    try {
      body = this.body([...messages, ...added])
    } catch (error) {
      if (!(error instanceof SettingError)) throw error
      failed()
      return this.refuse(error)
    }
    find('settings-form').querySelectorAll('[aria-invalid]').forEach((node) => node.removeAttribute('aria-invalid'))
    find('settings-problem')?.remove()
    accepted()
    const answer = new Answer(this.log)
    const request = new AbortController()
    this.setRequest(request)
    this.follow(true)
    let problem = null
    try {
      for await (const chunk of stream('v1/chat/completions', body, request.signal)) {
        answer.add(chunk)
        this.follow()
      }
    } catch (error) {
      if (error.name === 'AbortError') answer.finish = 'stopped'
      else if (error instanceof ServerError) problem = error.message
      else throw error
    } finally {
      this.setRequest(null)
    }
    if (messages !== this.messages) return
    answer.end()
    if (problem) answer.fail(problem)
    if (answer.isEmpty && (problem || answer.finish === 'stopped')) {
      failed()
    } else {
      messages.push(...added, answer.message)
      if (answer.finish === 'tool_calls') this.wantResults(answer)
    }
    this.follow()
  }

  setRequest(request) {
    this.request = request
    find('send').hidden = request !== null
    find('stop').hidden = request === null
  }

  /** Keeps the end of the conversation in view, unless the user has scrolled away from it. */
  follow(always = false) {
    if (always) this.isAtEnd = true
    // Once for each frame, as tokens may come far more often, and reading heights costs a layout.
    if (!this.isAtEnd || this.isFollowing) return
    this.isFollowing = true
    requestAnimationFrame(() => {
      this.isFollowing = false
      this.log.scrollTop = this.log.scrollHeight
    })
  }

  // Tool calls

  /** Lets the user write what the tools answer. */
  wantResults(answer) {
    for (const call of answer.calls) {
      const id = `result-${call.id}`
      call.result = element('textarea', { id, rows: 2, class: 'code' })
      call.node.append(element('label', { for: id }, 'Result'), call.result)
    }
    const send = element('button', { type: 'button' }, 'Send results')
    send.addEventListener('click', () => {
      if (!this.request) this.ask(this.takeResults(), () => {}, () => this.restoreResults({ answer, send }))
    })
    answer.node.append(send)
    this.open = { answer, send }
  }

  /** The messages of the tools that the model has called; none if it has called none. */
  takeResults() {
    if (!this.open) return []
    const { answer, send } = this.open
    this.open = null
    send.remove()
    return answer.calls.map((call) => {
      call.result.readOnly = true
      return { role: 'tool', tool_call_id: call.id, content: call.result.value }
    })
  }

  restoreResults(open) {
    for (const call of open.answer.calls) call.result.readOnly = false
    open.answer.node.append(open.send)
    this.open = open
  }

  // Settings

  body(messages) {
    const system = find('system').value
    const body = {
      model: this.model, stream: true, stream_options: { include_usage: true },
      logprobs: true, top_logprobs: this.topCount,
      messages: system.trim() === '' ? messages : [{ role: 'system', content: system }, ...messages],
    }
    for (const [id, member] of [['temperature', 'temperature'], ['max-tokens', 'max_tokens'], ['seed', 'seed']]) {
      const value = this.number(id)
      if (value !== null) body[member] = value
    }
    const thinking = find('thinking').value
    if (thinking) body.chat_template_kwargs = { thinking: thinking === 'on' }
    const tools = this.json('tools', Array.isArray, 'a list of tools')
    if (tools) body.tools = tools
    const isObject = (value) => value !== null && typeof value === 'object' && !Array.isArray(value)
    return { ...body, ...this.json('more', isObject, 'an object'), stream: true }
  }

  number(id) {
    const input = find(id)
    if (!input.validity.valid) {
      throw new SettingError(id, `${input.labels[0].textContent}: ${input.validationMessage}`)
    }
    return input.value === '' ? null : Number(input.value)
  }

  json(id, fits, kind) {
    const text = find(id).value
    if (text.trim() === '') return null
    const name = find(id).labels[0].textContent
    let value
    try {
      value = JSON.parse(text)
    } catch (error) {
      throw new SettingError(id, `${name}: this is no JSON: ${error.message}`)
    }
    if (!fits(value)) throw new SettingError(id, `${name}: this must be ${kind}.`)
    return value
  }

  refuse(error) {
    find('settings-problem')?.remove()
    find('settings').open = true
    find(error.id).setAttribute('aria-invalid', 'true')
    find(error.id).after(element('p', { class: 'error', role: 'alert', id: 'settings-problem' }, error.message))
    find(error.id).focus()
  }
}
