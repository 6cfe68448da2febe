"""Kinglet's server beside a bare loop, beside other servers, and over time under load with bad requests in it."""
