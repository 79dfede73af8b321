"""Other libraries, each in a virtual environment of its own, run on our ratings so that ours can be compared with them.

``python -m bench peers install NAME`` makes the environment. `bench.peers.run` times a peer or has it predict, and
scores the predictions itself. A peer's Python imports nothing of ours but `adapter`, the modules ``adapter_*`` and
`bench.energy`.
"""
