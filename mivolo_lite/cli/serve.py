"""``mivolo-lite serve``."""

import errno
import socket
from collections.abc import Sequence

from mivolo_lite.cli.options import parse, parser_of
from mivolo_lite.cli.shared_options import add_predictor_options, add_tta
from mivolo_lite.errors import UserError
from mivolo_lite.ranges import float_range, int_range

LOCALHOST = "127.0.0.1"
_PORT_OPTION = getattr(socket, "SO_EXCLUSIVEADDRUSE", socket.SO_REUSEADDR)
"""Lets a server begin right after another one ended; under SO_REUSEADDR, two servers of Windows share a port."""


def run(argv: Sequence[str]) -> None:
    """``serve [--port 8000]``: a web page for photos, and the HTTP API ``POST /predict``."""
    parser = parser_of("serve", run)
    parser.add_argument(
        "--host", type=str, default=LOCALHOST, help="0.0.0.0 admits other machines, without authentication"
    )
    parser.add_argument("--port", type=int_range(0, 65535), default=8000, help="0 chooses a free port")
    add_predictor_options(parser)
    add_tta(parser)
    parser.add_argument("--max_megabytes", type=float_range(0.01, 1000), default=16.0, help="largest file")
    parser.add_argument("--max_megapixels", type=float_range(0.01, 1000), default=25.0, help="largest photo")
    parser.add_argument("--batch", type=int_range(1, 64), default=4, help="photos in one batch")
    options = parse(parser, argv)
    _serve(options)


def _serve(options: dict) -> None:
    try:
        import uvicorn

        from mivolo_lite.inference.admission import Limits
        from mivolo_lite.inference.serve import LOCAL, Server, make_app
    except ImportError as error:
        raise UserError(f'serve: {error.name} is not installed; pip install "mivolo-lite[serve]"') from None
    from mivolo_lite.inference.predictor import Predictor

    names = ("detector", "persons", "device", "tta")
    listening = _listen(options["host"], options["port"])
    predictor = Predictor.load(options["checkpoint"], **{name: options[name] for name in names})
    limits = Limits(options["max_megabytes"], options["max_megapixels"], options["batch"])
    is_local = options["host"] in ("localhost", LOCALHOST, "::1")
    app = make_app(predictor, limits, LOCAL if is_local else ["*"])
    address, port = listening.getsockname()[:2]
    host = f"[{address}]" if ":" in address else address
    print(f"serving on http://{host}:{port}; stop with Ctrl-C", flush=True)
    config = uvicorn.Config(app, log_level="warning", access_log=False, server_header=False, timeout_keep_alive=5)
    Server(config).run(sockets=[listening])


def _listen(host: str, port: int) -> socket.socket:
    """A listening socket. Raises UserError where the address is taken, or not this machine's."""
    try:
        family, kind, protocol, _, address = socket.getaddrinfo(host, str(port), type=socket.SOCK_STREAM)[0]
        listening = socket.socket(family, kind, protocol)
        listening.setsockopt(socket.SOL_SOCKET, _PORT_OPTION, 1)
        listening.bind(address)
        listening.listen()  # from now on a request waits, and is not refused, while the model loads
    except OSError as error:
        is_of_port = error.errno in (errno.EADDRINUSE, errno.EACCES)
        remedy = "choose another port" if is_of_port else "give a name or an address of this machine"
        raise UserError(f"serve: --host {host} --port {port}: {error.strerror}; {remedy}") from None
    return listening
