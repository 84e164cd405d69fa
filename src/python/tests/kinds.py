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


def nothing():
    plain


def gives_a_factory():
    return open_to_all


def keyword_only(environ, start_response, *, more):
    pass


def three(environ, start_response, more):
    pass


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


class Given:
    """What is made of it need not be of it."""

    def __new__(cls, environ, start_response):
        return plain(environ, start_response)


class Meta(type):
    def __call__(cls, environ, start_response):
        return plain(environ, start_response)


class Metered(metaclass=Meta):
    pass


class Static:
    @staticmethod
    def __call__(environ, start_response):
        return plain(environ, start_response)


class Named:
    @classmethod
    def __call__(cls, environ, start_response):
        return plain(environ, start_response)


class Lent:
    class Lender:
        def __get__(self, instance, owner=None):
            return plain

    __call__ = Lender()


class Rough:
    """It has no attribute, and says so in its own way."""

    def __getattr__(self, name):
        raise RuntimeError(name)

    def __call__(self, *arguments):
        return plain(*arguments)


class Stranger:
    pass


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
short = lambda e=None, s=None: plain(e, s)
static = Static()
of_class = Named()
lent = Lent()
rough = Rough()
metered = Metered
positional = eval("lambda environ, start_response, /: plain(environ, start_response)")
stranger = Stranger()
