"""What docs/api.md says is run: its requests, its receivers of webhooks, its loop in a browser."""

from __future__ import annotations

import base64
import hmac
import json
import re
import shutil
import subprocess
import time
from typing import Any

import pytest
from api import Api
from running import ROOT

from reos.integrations.webhooks import new_secret, signed_headers

pytestmark = pytest.mark.integration

BODY = b'{"type":"lead.created","data":{"first_name":"J\xc3\xbcrgen"}}'


def blocks(language: str) -> list[str]:
    """The document's blocks of a language, in order."""
    text = (ROOT / "docs" / "api.md").read_text(encoding="utf-8")
    return re.findall(rf"```{language}\n(.*?)```", text, re.DOTALL)


async def test_the_requests_work(api: Api) -> None:
    admin = await api.register()
    asked = re.findall(r'"\$API(/[^"]+)"', blocks("sh")[0])
    assert len(asked) == 4
    for path in asked:
        response = await admin.request("GET", path)
        assert response.status_code == 200, response.text


def deliveries() -> list[tuple[bool, str, dict[str, str], bytes]]:
    """Whether it is ours, the secret, headers and body: good ones, and each thing that may be wrong with one."""
    secret, other = new_secret(), new_secret()
    now = int(time.time())
    return [
        (True, secret, signed_headers([secret], "1", now, BODY), BODY),
        (True, secret, signed_headers([other, secret], "1", now, BODY), BODY),
        (False, secret, signed_headers([other], "1", now, BODY), BODY),
        (False, secret, signed_headers([secret], "1", now, BODY), BODY + b" "),
        (False, secret, signed_headers([secret], "1", now, BODY) | {"webhook-id": "2"}, BODY),
        (False, secret, signed_headers([secret], "1", now - 400, BODY), BODY),
    ]


@pytest.mark.unit
def test_the_receiver_in_python() -> None:
    names: dict[str, Any] = {"base64": base64, "hmac": hmac, "time": time}
    exec(blocks("python")[0], names)
    for is_ours, *delivery in deliveries():
        assert names["is_ours"](*delivery) is is_ours


@pytest.mark.unit
@pytest.mark.skipif(shutil.which("node") is None, reason="Node.js is not installed")
def test_the_receiver_in_javascript() -> None:
    receiver = next(block for block in blocks("js") if "isOurs" in block)
    cases = [[secret, headers, body.decode()] for _, secret, headers, body in deliveries()]
    script = f"{receiver}\nconsole.log(JSON.stringify({json.dumps(cases)}.map((one) => isOurs(...one))));"
    ran = subprocess.run(
        ["node", "--input-type=module", "-"], input=script, capture_output=True, text=True, check=True, timeout=30
    )
    assert json.loads(ran.stdout) == [is_ours for is_ours, *_ in deliveries()]


@pytest.mark.unit
@pytest.mark.skipif(shutil.which("node") is None, reason="Node.js is not installed")
def test_the_loop_in_a_browser_comes_again_where_it_was() -> None:
    """Run beside a browser that is played: what is fetched and opened, after an event and then an error."""
    loop = next(block for block in blocks("js") if "EventSource" in block)
    stage = """
    const opened = [], sources = [], shown = [], token = "t";
    globalThis.fetch = async () => ({ json: async () => ({ ticket: `T${opened.length}` }) });
    globalThis.EventSource = class { constructor(url) { opened.push(url); sources.push(this); } close() {} };
    globalThis.setTimeout = (work) => work();
    const reloadEverything = () => shown.push("all"), show = (type) => shown.push(type);
    """
    play = """
    await follow();
    sources[0].onmessage({ lastEventId: "7", data: '{"type":"lead.created","data":{}}' });
    sources[0].onmessage({ lastEventId: "8", data: '{"type":"resync"}' });
    sources[0].onerror();
    await new Promise((done) => setImmediate(done));
    console.log(JSON.stringify({ opened, shown }));
    """
    ran = subprocess.run(
        ["node", "--input-type=module", "-"],
        input=stage + loop + play,
        capture_output=True,
        text=True,
        check=True,
        timeout=30,
    )
    assert json.loads(ran.stdout) == {
        "opened": ["/api/v1/sse/stream?ticket=T0", "/api/v1/sse/stream?ticket=T1&last_event_id=8"],
        "shown": ["lead.created", "all"],
    }
