"""Objects that are WSGI applications, and objects that are taken for one."""

import functools


def plain(environ, start_response):
    start_response("200 OK", [("Content-Type", "text/plain")])
    return [b"answered"]


def factory():
    return plain


def named(name="x", *, debug=False):
    assert (name, debug) == ("production", True), (name, debug)
    return plain


def optional(name="x"):
    return plain


def with_name(name):
    return plain


def seven():
    return 7


def open_to_all(config=None, debug=False):
    return plain


def strict(config, /, secret):
    return plain


async def scoped(scope, receive, send):
    pass


async def other(event, context, more):
    pass


def old_asgi(scope):
    return None


def synchronous_asgi(scope, receive, send):
    pass


async def async_factory():
    return plain


async def stream(environ, start_response):
    yield b""


class Callable:
    def __call__(self, environ, start_response):
        return plain(environ, start_response)

    def method(self, environ, start_response):
        return plain(environ, start_response)


class AsyncCallable:
    async def __call__(self, scope, receive, send):
        pass


class Response:
    """As in PEP 3333."""

    def __init__(self, environ, start_response):
        self.pieces = plain(environ, start_response)

    def __iter__(self):
        return iter(self.pieces)


class NoResponse:
    def __init__(self, environ, start_response):
        pass


class Request:
    def __call__(self, request):
        pass


class Namespace:
    application = staticmethod(plain)
    bound = plain
    factory = staticmethod(factory)


def decorated(function):
    @functools.wraps(function)
    def inner(*arguments, **named):
        return plain(*arguments, **named)

    return inner


wrapped = decorated(factory)
starred = lambda *arguments: plain(*arguments)
partial = functools.partial(lambda ignored, *rest: plain(*rest), None)
instance = Callable()
method = instance.method
async_instance = AsyncCallable()
wants_request = Request()
nested = Namespace()
number = 7
defaults = lambda environ, start_response, more=None: plain(environ, start_response)
