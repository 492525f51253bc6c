"""Learning: rounds in which accepted labels become a better version, judged before it is used. Needs no server."""
