"""A hook that would not run."""


async def worker_start():
    print("never")
