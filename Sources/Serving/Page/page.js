// The page: its views, what the server is, and the dialog for the API key.

import { Chat } from './chat.js'
import { element, find, whole } from './elements.js'
import { Ranks } from './ranks.js'
import { ServerError, askForKey, getJSON } from './server.js'

const views = ['chat', 'ranks']
const ranks = new Ranks()

function show(view) {
  for (const name of views) {
    find(name).hidden = name !== view
    const link = find(`${name}-link`)
    if (name === view) link.setAttribute('aria-current', 'page')
    else link.removeAttribute('aria-current')
  }
  document.title = `Braid – ${view}`
  ranks.isShown = view === 'ranks'
}

function follow() {
  const view = location.hash.slice(1)
  show(views.includes(view) ? view : 'chat')
}

function notice(text) {
  find('notice').textContent = text
  find('notice').hidden = text === ''
}

/** Asks for the API key, until it is given or the dialog is closed. */
function keyDialog(isWrong) {
  const dialog = find('key-dialog')
  find('key-text').textContent =
    (isWrong ? 'That is not the key of this server. ' : 'This server asks for its API key. ')
    + 'It is kept until this tab is closed.'
  find('key').value = ''
  dialog.returnValue = ''
  dialog.showModal()
  return new Promise((resolve) => {
    dialog.addEventListener('close', () => {
      resolve(dialog.returnValue === 'use' ? find('key').value : null)
      find('key').value = ''
    }, { once: true })
  })
}

/** Reads what the server is. A model that is still being loaded is waited for. */
async function start() {
  askForKey(keyDialog)
  find('key-cancel').addEventListener('click', () => find('key-dialog').close())
  addEventListener('hashchange', follow)
  follow()
  for (;;) {
    try {
      const info = await getJSON('server_info')
      notice('')
      find('model-name').textContent = info.served_model_name
      find('model-layout').textContent =
        `${info.layout} · context ${whole(info.context_length)} · ${info.dtype}`
      new Chat(info)
      return
    } catch (error) {
      if (!(error instanceof ServerError)) throw error
      notice(error.message)
      if (error.status === 401) {
        const again = element('button', { type: 'button' }, 'Give the key')
        again.addEventListener('click', () => location.reload())
        find('notice').append(' ', again)
        return
      }
      await new Promise((resolve) => setTimeout(resolve, 1000))
    }
  }
}

start()
