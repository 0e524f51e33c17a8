// Keeps all mail as files below $MAIL and plays the faults.
'use strict'
const fs = require('node:fs')
const path = require('node:path')

const ours = ['example.com', 'bücher.example', 'xn--bcher-kva.example']
const greylist = new Set()
let count = 0

exports.hook_mail = (next, connection) => {
    const needs_login = [465, 587].includes(connection.local.port)
    if (!needs_login || connection.notes.auth_user) return next()
    next(DENY, '5.7.0 authentication required')
}

exports.hook_rcpt = (next, connection, params) => {
    switch (params[0].user) {
        case 'deferred': return next(DENYSOFT, '4.2.1 mailbox busy')
        case 'rejected': return next(DENY, '5.1.1 no such user here')
        // What Haraka itself says before it hangs up is a 450 here.
        case 'closing':
            return connection.respond(421, '4.3.2 shutting down', () => connection.disconnect())
        case 'greylisted': {
            const from = `${connection.transaction.mail_from.address} ${connection.local.port}`
            if (greylist.has(from)) break
            greylist.add(from)
            return next(DENYSOFT, '4.7.1 greylisted, try again later')
        }
    }
    if (!ours.includes(params[0].host)) return next(DENY, '5.7.1 this server does not relay')
    next(OK)
}

exports.hook_queue = (next, connection) => {
    const transaction = connection.transaction
    const recipient = transaction.rcpt_to[0].user
    if (recipient === 'dot-deferred') return next(DENYSOFT, '4.3.0 not now')
    if (recipient === 'dot-rejected') return next(DENY, '5.6.0 not this message')
    transaction.message_stream.get_data((message) => {
        const name = `${process.pid}.${count++}`
        const unfinished = path.join(process.env.MAIL, 'tmp', name)
        fs.mkdirSync(path.dirname(unfinished), { recursive: true })
        fs.writeFileSync(unfinished, message)
        fs.renameSync(unfinished, path.join(process.env.MAIL, name))
        if (recipient === 'dot-cut') return connection.client.destroy()
        next(OK)
    })
}
// Mail of a client that logged in comes here.
exports.hook_queue_outbound = exports.hook_queue
