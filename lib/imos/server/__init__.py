"""What the app adds to MONAI Label: tasks, routes, jobs, state, security.

`apps/imos/main.py` registers it. Two rules hold everywhere here: a request never names a path of the server, and what a
client did wrong is answered with a 4xx status and a sentence, never with a bare 500.
"""
