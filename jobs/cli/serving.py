"""The command that shows the page."""

from enrich.settings import load_settings
from jobs.cli import options as opt
from jobs.cli.app import app
from jobs.cli.guard import stopping


@app.command()
def serve(host: opt.Host = "127.0.0.1", port: opt.Port = 8080, verbose: opt.Verbose = False) -> None:
    """Show the page: search, listings with their photos, and what people say of them. Ctrl-C ends it.

    On another address than this machine's own, who may come in must be said: ENRICH_WEB_EDIT_TOKEN, or
    ENRICH_WEB_TRUSTED_HEADER behind a reverse proxy.
    """
    from jobs.web.serving import serve as start

    with stopping() as stop:
        start(load_settings(), host, port, stop)
