"""A real mail server on a free loopback port, for tests.

Prints one JSON line with its port, then one for each mail it took. Ends when its input is closed.
`--answer VERB:ANSWER` answers the next MAIL, RCPT or DATA so; it can be given several times.
`--for ADDRESS:ANSWER` answers each RCPT of that address so; the answer `hang` is none, `drop` hangs up, and one that
begins with `DATA ` is given to the content of a mail that is for it.
"""

import argparse
import asyncio
import json
import ssl
import sys

from aiosmtpd.smtp import SMTP, AuthResult

parser = argparse.ArgumentParser()
parser.add_argument("--cert")
parser.add_argument("--key")
parser.add_argument("--implicit", action="store_true")
parser.add_argument("--login", help="USER:PASSWORD, demanded")
parser.add_argument("--answer", action="append", default=[])
parser.add_argument("--for", action="append", default=[], dest="special")
args = parser.parse_args()

answers = [answer.split(":", 1) for answer in args.answer]
special = dict(answer.split(":", 1) for answer in args.special)


def say(what):
    print(json.dumps(what), flush=True)


def scripted(verb):
    for index, (for_verb, answer) in enumerate(answers):
        if for_verb == verb:
            del answers[index]
            return answer
    return None


class Handler:
    async def handle_MAIL(self, server, session, envelope, address, options):
        answer = scripted("MAIL")
        if answer is None:
            envelope.mail_from = address
        return answer or "250 OK"

    async def handle_RCPT(self, server, session, envelope, address, options):
        answer = scripted("RCPT")
        own = special.get(address, "")
        if own == "hang":
            await asyncio.sleep(3600)
        if own == "drop":
            server.transport.abort()
            return "421 going"
        if own and not own.startswith("DATA "):
            answer = own
        if answer is None:
            envelope.rcpt_tos.append(address)
        return answer or "250 OK"

    async def handle_DATA(self, server, session, envelope):
        answer = scripted("DATA")
        for address in envelope.rcpt_tos:
            own = special.get(address, "")
            if own.startswith("DATA "):
                answer = own.removeprefix("DATA ")
        if answer == "hang":
            await asyncio.sleep(3600)
        if answer is None:
            say({
                "from": envelope.mail_from,
                "to": envelope.rcpt_tos,
                "content": envelope.content.decode("ascii"),
                "encrypted": session.ssl is not None or args.implicit,
                "authenticated": bool(session.authenticated),
            })
        return answer or "250 taken"


def authenticate(server, session, envelope, mechanism, data):
    good = args.login is not None and args.login.encode() == data.login + b":" + data.password
    return AuthResult(success=good, handled=False)


async def main():
    context = None
    if args.cert:
        context = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
        context.load_cert_chain(args.cert, args.key)

    def connection():
        return SMTP(
            Handler(),
            hostname="mail.test",
            tls_context=None if args.implicit else context,
            require_starttls=bool(context) and not args.implicit,
            auth_required=args.login is not None,
            auth_require_tls=not args.implicit,
            authenticator=authenticate,
        )

    loop = asyncio.get_running_loop()
    server = await loop.create_server(connection, "127.0.0.1", 0, ssl=context if args.implicit else None)
    say({"port": server.sockets[0].getsockname()[1]})
    await loop.run_in_executor(None, sys.stdin.read)


asyncio.run(main())
