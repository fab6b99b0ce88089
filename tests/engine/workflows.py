"""Workflows that several test modules start. Names are given: one suite is one app."""

from durable_workflows import sleep, workflow


class Declined(Exception):
    pass


@workflow(name="engine.doubled")
def doubled(number):
    return number * 2


@workflow(name="engine.doubled_async")
async def doubled_async(number):
    return number * 2


@workflow(name="engine.other")
def other(number):
    return -number


@workflow(name="engine.slow")
def slow(seconds, value):
    sleep(seconds)
    return value


@workflow(name="engine.failing")
def failing():
    raise Declined("card")
