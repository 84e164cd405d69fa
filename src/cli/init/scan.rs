//! What the text of a Python file says about applications in it, without running it.

/// What a file makes an application with.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Interface {
    /// PEP 3333.
    Wsgi,
    /// Served by an ASGI server.
    Asgi,
}

/// Something in a file that is an application, or makes one.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Candidate {
    pub(super) framework: &'static str,
    pub(super) interface: Interface,
    /// What follows the colon: a name, or a call.
    pub(super) expression: String,
}

/// What is assigned to the name of an application, and the framework that it is of.
const MAKERS: [(&str, &str, Interface); 13] = [
    ("Flask(", "Flask", Interface::Wsgi),
    ("Bottle(", "Bottle", Interface::Wsgi),
    ("default_app(", "Bottle", Interface::Wsgi),
    ("falcon.App(", "Falcon", Interface::Wsgi),
    ("falcon.asgi.App(", "Falcon", Interface::Asgi),
    ("get_wsgi_application(", "Django", Interface::Wsgi),
    ("get_asgi_application(", "Django", Interface::Asgi),
    (".make_wsgi_app(", "Pyramid", Interface::Wsgi),
    ("FastAPI(", "FastAPI", Interface::Asgi),
    ("Starlette(", "Starlette", Interface::Asgi),
    ("Litestar(", "Litestar", Interface::Asgi),
    ("Quart(", "Quart", Interface::Asgi),
    ("Sanic(", "Sanic", Interface::Asgi),
];

/// Functions that make applications, by their usual names.
const FACTORIES: [&str; 2] = ["create_app", "make_app"];

/// What is in a file, what is most likely meant first: what stands at the top level under a name, then a factory.
pub(super) fn candidates(text: &str) -> Vec<Candidate> {
    let mut found: Vec<_> = text.lines().filter_map(assigned).collect();
    found.extend(text.lines().filter_map(function));
    let framework = mentioned(text);
    found.extend(text.lines().filter_map(|line| factory(line, framework?)));
    found
}

/// `app = Flask(__name__)`, at the top level.
fn assigned(line: &str) -> Option<Candidate> {
    let (name, value) = line.split_once('=')?;
    // An annotation may follow the name.
    let name = name.split(':').next()?.trim_end();
    let is_name = |text: &str| {
        !text.is_empty()
            && text.chars().all(|c| c == '_' || c.is_alphanumeric())
            && !text.starts_with(char::is_numeric)
    };
    if !is_name(name) {
        return None;
    }
    let value = value.trim_start();
    let (_, framework, interface) = MAKERS.iter().find(|(maker, ..)| makes(value, maker))?;
    Some(Candidate {
        framework,
        interface: *interface,
        expression: name.to_owned(),
    })
}

/// Whether a value is what a maker makes, whatever module the maker is called in.
fn makes(value: &str, maker: &str) -> bool {
    let call = value.find('(').map_or("", |at| &value[..=at]);
    match maker.strip_prefix('.') {
        Some(_) => value.contains(maker),
        None => {
            call == maker
                || call
                    .strip_suffix(maker)
                    .is_some_and(|module| module.ends_with('.'))
        }
    }
}

/// `def application(environ, start_response):`, at the top level.
fn function(line: &str) -> Option<Candidate> {
    let (name, arguments) = line.strip_prefix("def ")?.split_once('(')?;
    let arguments: String = arguments.split_whitespace().collect();
    let is_wsgi = arguments.starts_with("environ,start_response)")
        || arguments.starts_with("env,start_response)");
    is_wsgi.then(|| Candidate {
        framework: "WSGI",
        interface: Interface::Wsgi,
        expression: name.trim().to_owned(),
    })
}

/// The framework that the file makes something with, at any depth.
fn mentioned(text: &str) -> Option<(&'static str, Interface)> {
    let values = text.lines().filter_map(|line| line.split_once('='));
    let mut values = values.map(|(_, value)| value.trim_start());
    values.find_map(|value| {
        let found = MAKERS.iter().find(|(maker, ..)| makes(value, maker))?;
        Some((found.1, found.2))
    })
}

/// `def create_app():` of a file that makes an application somewhere.
fn factory(line: &str, (framework, interface): (&'static str, Interface)) -> Option<Candidate> {
    let (name, arguments) = line.strip_prefix("def ")?.split_once('(')?;
    let arguments = arguments.split(')').next()?;
    let needs_none = arguments
        .split(',')
        .map(str::trim)
        .all(|argument| argument.is_empty() || argument.contains('=') || argument.starts_with('*'));
    (FACTORIES.contains(&name) && needs_none).then(|| Candidate {
        framework,
        interface,
        expression: format!("{name}()"),
    })
}

/// The string that is assigned to `name` in a file of settings, at the top level.
pub(super) fn setting<'t>(text: &'t str, name: &str) -> Option<&'t str> {
    let assigned = text.lines().find_map(|line| {
        let rest = line.strip_prefix(name)?.trim_start();
        rest.strip_prefix('=')
    })?;
    string(assigned)
}

/// The second string of a call such as `os.environ.setdefault("NAME", "VALUE")`.
pub(super) fn default_of<'t>(text: &'t str, name: &str) -> Option<&'t str> {
    let at = text.find(name)?;
    let after = text[at + name.len()..].split_once(',')?.1;
    string(after)
}

/// The string with which a text begins.
fn string(text: &str) -> Option<&str> {
    let text = text.trim_start();
    let quote = text.chars().next().filter(|c| "\"'".contains(*c))?;
    let inside = &text[1..];
    inside.split_once(quote).map(|(value, _)| value)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn found(text: &str) -> Vec<(&'static str, Interface, String)> {
        let found = candidates(text).into_iter();
        found
            .map(|one| (one.framework, one.interface, one.expression))
            .collect()
    }

    #[test]
    fn applications_are_found_by_how_they_are_made() {
        use Interface::{Asgi, Wsgi};
        for (text, framework, interface, expression) in [
            ("app = Flask(__name__)\n", "Flask", Wsgi, "app"),
            (
                "application = flask.Flask('x')",
                "Flask",
                Wsgi,
                "application",
            ),
            ("app: Flask = Flask(__name__)", "Flask", Wsgi, "app"),
            ("server = bottle.default_app()", "Bottle", Wsgi, "server"),
            ("app = falcon.App()", "Falcon", Wsgi, "app"),
            ("app = falcon.asgi.App()", "Falcon", Asgi, "app"),
            ("app = FastAPI(title='x')", "FastAPI", Asgi, "app"),
            ("app = config.make_wsgi_app()", "Pyramid", Wsgi, "app"),
            (
                "app = Configurator().make_wsgi_app()",
                "Pyramid",
                Wsgi,
                "app",
            ),
            (
                "def application(environ, start_response):\n    pass",
                "WSGI",
                Wsgi,
                "application",
            ),
            (
                "def create_app(config=None):\n    app = Flask(__name__)\n    return app",
                "Flask",
                Wsgi,
                "create_app()",
            ),
            (
                "def create_app():\n    app = FastAPI()\n",
                "FastAPI",
                Asgi,
                "create_app()",
            ),
        ] {
            assert_eq!(
                found(text),
                [(framework, interface, expression.to_owned())],
                "{text}"
            );
        }
        for text in [
            "# app = Flask(__name__)",
            "    app = Flask(__name__)",
            "app.name = Flask(__name__)",
            "app == Flask(__name__)",
            "MyFlask = type('x')",
            "app = MyFlask(__name__)",
            "def create_app(config):\n    app = Flask(__name__)",
            "def create_app():\n    return 1",
            "async def application(environ, start_response):",
        ] {
            assert_eq!(found(text), [], "{text}");
        }
    }

    #[test]
    fn what_is_named_at_the_top_level_comes_before_a_factory() {
        let text = "def create_app():\n    app = Flask('x')\n    return app\napp = create_app()\nother = Flask('y')\n";
        let names: Vec<_> = candidates(text)
            .into_iter()
            .map(|one| one.expression)
            .collect();
        assert_eq!(names, ["other", "create_app()"]);
    }

    #[test]
    fn settings_are_read_as_text() {
        let text = "import os\nWSGI_APPLICATION = 'shop.wsgi.application'\nX = 1\n";
        assert_eq!(
            setting(text, "WSGI_APPLICATION"),
            Some("shop.wsgi.application")
        );
        assert_eq!(setting(text, "WSGI"), None);
        assert_eq!(setting(text, "X"), None);
        let manage = "    os.environ.setdefault(\"DJANGO_SETTINGS_MODULE\", \"shop.settings\")\n";
        assert_eq!(
            default_of(manage, "DJANGO_SETTINGS_MODULE\""),
            Some("shop.settings")
        );
        assert_eq!(default_of("x", "DJANGO_SETTINGS_MODULE"), None);
    }
}
