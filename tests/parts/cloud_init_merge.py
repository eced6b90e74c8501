"""Run by the system's own Python: how cloud-init itself reads and merges a user-data document, printed as JSON."""

import json
import sys
import tempfile

from cloudinit import handlers, helpers, user_data, util
from cloudinit.handlers.cloud_config import CloudConfigPartHandler
from cloudinit.settings import PER_INSTANCE

scratch = tempfile.TemporaryDirectory()
folder = scratch.name
paths = helpers.Paths({"cloud_dir": folder, "run_dir": folder})
paths.get_ipath = lambda name=None: f"{folder}/out-{name}"
message = user_data.UserDataProcessor(paths).process(sys.stdin.read())
merged = CloudConfigPartHandler(paths)
merged.handle_part(None, handlers.CONTENT_START, None, None, PER_INSTANCE, {})
others = []
for part in message.walk():
    if part.get_content_maintype() == "multipart":
        continue
    payload = util.fully_decoded_payload(part)
    if part.get_content_type() == "text/cloud-config":
        merged.handle_part(None, "text/cloud-config", part.get_filename() or "part", payload, PER_INSTANCE, part)
    else:
        others.append([part.get_content_type(), payload])
print(json.dumps({"config": merged.cloud_buf, "others": others}))
