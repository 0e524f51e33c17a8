"""Keeps all mail as files below mail/ and plays the faults."""
import asyncio
import itertools
import os
import ssl

from aiosmtpd.smtp import SMTP, AuthResult, LoginPassword

ROOT, HOST = "@ROOT@", "@HOST@"
LOGIN = LoginPassword(b"@USER@", "@PASSWORD@".encode())
AT_RCPT = {
    "deferred": "450 4.2.1 mailbox busy",
    "rejected": "550 5.1.1 no such user here",
    "closing": "421 4.3.2 shutting down",
    "greylisted": "451 4.7.1 greylisted, try again later",
}
AT_DOT = {
    "dot-deferred": "451 4.3.0 not now",
    "dot-rejected": "554 5.6.0 not this message",
}
number = itertools.count()
greylist = set()


def authenticate(server, session, envelope, mechanism, login):
    return AuthResult(success=login == LOGIN, handled=False, auth_data=login)


def received(server, session, envelope):
    """How the message came, in the words of RFC 3848 and RFC 6531."""
    login = session.auth_data.login.decode() if session.authenticated else "none"
    tls = server.transport.get_extra_info("ssl_object")
    protocol = "UTF8SMTP" if envelope.smtp_utf8 else "ESMTP"
    protocol += ("S" if tls else "") + ("A" if session.authenticated else "")
    how = f"{protocol} ({tls.version() if tls else 'no TLS'}, login {login})"
    return f"Received: from {session.host_name} by {HOST} with {how}\r\n"


class Handler:
    async def handle_RCPT(self, server, session, envelope, address, options):
        recipient = address.split("@")[0]
        reply = AT_RCPT.get(recipient, "250 2.1.5 ok")
        if recipient == "greylisted":
            sender = (envelope.mail_from, server.transport.get_extra_info("sockname"))
            if sender in greylist:
                reply = "250 2.1.5 ok"
            greylist.add(sender)
        if reply.startswith("2"):
            envelope.rcpt_tos.append(address)
        if reply.startswith("421"):
            asyncio.get_running_loop().call_soon(server.transport.close)
        return reply

    async def handle_DATA(self, server, session, envelope):
        recipient = envelope.rcpt_tos[0].split("@")[0]
        if recipient in AT_DOT:
            return AT_DOT[recipient]
        name = str(next(number))
        with open(f"{ROOT}/mail/tmp/{name}", "wb") as file:
            file.write(received(server, session, envelope).encode() + envelope.original_content)
        os.rename(f"{ROOT}/mail/tmp/{name}", f"{ROOT}/mail/{name}")
        if recipient == "dot-cut":
            server.transport.abort()
        return "250 2.0.0 taken"


async def main():
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(f"{ROOT}/server.pem", f"{ROOT}/server.key")
    os.mkdir(f"{ROOT}/mail/tmp")
    loop = asyncio.get_running_loop()

    def protocol(**more):
        more |= {"hostname": "mail.example.com", "enable_SMTPUTF8": True}
        return lambda: SMTP(Handler(), authenticator=authenticate, **more)

    starttls = {"tls_context": context}
    login = {"auth_required": True}
    await loop.create_server(protocol(**starttls, **login, require_starttls=True), HOST, 587)
    await loop.create_server(protocol(**login, auth_require_tls=False), HOST, 465, ssl=context)
    await loop.create_server(protocol(**starttls), HOST, 25)
    await loop.create_server(protocol(auth_require_tls=False), HOST, 2525)
    await asyncio.Event().wait()


asyncio.run(main())
