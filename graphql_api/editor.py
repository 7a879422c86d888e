"""The page at /graphql: ask a question in a browser. Nothing of it is from any other host.

`make editor` builds it from npm's packages (see editor/ in the repository), and a wheel carries what is built. Where it is
not built, there is a small page in its place, which says so.
"""

import re
from base64 import b64encode
from hashlib import sha256
from http import HTTPStatus
from pathlib import Path
from typing import Final

from starlette.responses import HTMLResponse, Response
from starlette.staticfiles import StaticFiles
from starlette.types import Scope

HERE: Final = Path(__file__).parent
BUILT: Final = HERE / "built_editor"
# Where the page asks for its files; editor/vite.config.js has it too.
FILES_PATH: Final = "/graphql/editor"
_POLICY: Final = {
    "default-src": "'none'",
    "connect-src": "'self'",
    "img-src": "'self' data:",
    "base-uri": "'none'",
    "form-action": "'none'",
    "frame-ancestors": "'none'",
}
_INLINE: Final = re.compile(r"<(script|style)>(.*?)</\1>", re.DOTALL)


class Editor:
    """The page, with a policy that lets a browser load nothing but what is ours; and the files that it asks for."""

    def __init__(self, built: Path = BUILT) -> None:
        page = built / "index.html"
        if page.is_file():
            self._text = page.read_text(encoding="utf-8")
            # The code editor colours text with styles that it makes; its scripts are files, and make none.
            loaded = {
                "script-src": "'self'",
                "worker-src": "'self'",
                "style-src": "'self' 'unsafe-inline'",
                "font-src": "'self' data:",
            }
        else:
            self._text = (HERE / "editor.html").read_text(encoding="utf-8")
            loaded = {f"{kind}-src": f"'sha256-{_digest(text)}'" for kind, text in _INLINE.findall(self._text)}
        self._policy = "; ".join(f"{name} {sources}" for name, sources in {**_POLICY, **loaded}.items())
        self.files = _Files(directory=built, check_dir=False)

    def page(self) -> Response:
        """The page as it is answered."""
        headers = {"Content-Security-Policy": self._policy, "Referrer-Policy": "no-referrer", **_NO_SNIFFING}
        return HTMLResponse(self._text, headers=headers)


_NO_SNIFFING: Final = {"X-Content-Type-Options": "nosniff"}


class _Files(StaticFiles):
    """Files whose names change with what is in them: a browser asks once."""

    async def get_response(self, path: str, scope: Scope) -> Response:
        """The file, to be kept."""
        response = await super().get_response(path, scope)
        response.headers.update(_NO_SNIFFING)
        if response.status_code == HTTPStatus.OK and path.startswith("assets/"):
            response.headers["Cache-Control"] = "public, max-age=31536000, immutable"
        return response


def _digest(text: str) -> str:
    return b64encode(sha256(text.encode()).digest()).decode()
