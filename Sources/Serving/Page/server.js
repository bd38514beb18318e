// Requests to the server, with the API key where it asks for one.

const place = 'braid-api-key'
let key = sessionStorage.getItem(place) ?? ''
let ask = async () => null
let asking = null

/** An error whose message can be shown. */
export class ServerError extends Error {
  constructor(message, status = 0) {
    super(message)
    this.status = status
  }
}

/** Sets what asks the user for the key: it resolves to the key, or to null. */
export function askForKey(dialog) {
  ask = dialog
}

async function send(path, options) {
  const used = key
  const headers = { ...options.headers, ...(used ? { Authorization: `Bearer ${used}` } : {}) }
  let response
  try {
    response = await fetch(path, { ...options, headers, credentials: 'omit', cache: 'no-store' })
  } catch (error) {
    if (error.name === 'AbortError') throw error
    throw new ServerError('The server does not answer. Is it still running?')
  }
  if (response.ok) return response
  if (response.status !== 401) throw new ServerError(await message(response), response.status)
  // Another request may have got a key meanwhile.
  if (used === key) {
    asking ??= ask(used !== '').finally(() => { asking = null })
    const given = await asking
    if (given === null) throw new ServerError('The server asks for its API key.', 401)
    key = given
    sessionStorage.setItem(place, key)
  }
  return send(path, options)
}

async function message(response) {
  try {
    const error = (await response.json()).error
    if (typeof error.message === 'string') return error.message
  } catch {
    // It is no answer of Braid's; a proxy may have written it.
  }
  return `The server answers with status ${response.status}.`
}

export const getJSON = (path) => get(path, (response) => response.json())
export const getBlob = (path) => get(path, (response) => response.blob())

/** Reads an answer; one that was cut, or that a proxy wrote, is an error of the server. */
async function get(path, read) {
  const response = await send(path, {})
  try {
    return await read(response)
  } catch {
    throw new ServerError('The answer of the server is not complete.')
  }
}

/** Yields the events of a streamed answer. */
export async function* stream(path, body, signal) {
  const response = await send(path, {
    method: 'POST', headers: { 'Content-Type': 'application/json' }, body: JSON.stringify(body), signal,
  })
  const reader = response.body.pipeThrough(new TextDecoderStream()).getReader()
  let text = ''
  try {
    for (;;) {
      const { value, done } = await reader.read()
      if (done) break
      text += value
      const events = text.split('\n\n')
      text = events.pop()
      for (const event of events) {
        if (!event.startsWith('data: ')) continue
        if (event === 'data: [DONE]') return
        const data = JSON.parse(event.slice('data: '.length))
        if (data.error) throw new ServerError(data.error.message ?? 'The answer failed.')
        yield data
      }
    }
  } catch (error) {
    if (error.name === 'AbortError' || error instanceof ServerError) throw error
    throw new ServerError('The answer was interrupted: the connection to the server has ended.')
  } finally {
    reader.cancel().catch(() => {})
  }
  throw new ServerError('The answer was interrupted: the connection to the server has ended.')
}
