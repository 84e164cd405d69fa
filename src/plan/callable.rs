//! The form of `wsgi`: "MODULE:CALLABLE", or with a call that makes the application. Of a module alone the worker takes `application`, else
//! `app`.

/// What frameworks call the application or its factory.
const USUAL: [&str; 5] = ["application", "app", "wsgi_app", "create_app", "make_app"];

/// Checks the form. Whether it exists, only Python can tell.
///
/// # Errors
/// What is wrong, and what to write.
pub(super) fn check(name: &str) -> Result<(), String> {
    let wrong = |example: &str| {
        Err(format!(
            "must be \"MODULE:CALLABLE\", not {name:?} (write for example \"{example}\")"
        ))
    };
    if is_address(name) {
        return Err(format!(
            "must be \"MODULE:CALLABLE\", and {name:?} is an address (write listen = [\"{name}\"], and for example wsgi = \"mysite.wsgi:application\")"
        ));
    }
    let parts = name.split(':').next().unwrap_or_default().rsplit_once('.');
    if let Some((project, "asgi")) = parts {
        return Err(format!(
            "must be a WSGI application, and the module of {name:?} is for ASGI (write \"{project}.wsgi:application\" if there is one, as in Django; otherwise \
             run an ASGI server: command = [\"uvicorn\", \"--fd\", \"{{fd}}\", \"{project}.asgi:application\"] and ready = \"2s\")"
        ));
    }
    let Some((module, callable)) = name.split_once(':') else {
        return match is_module(name) && !name.ends_with(".py") && !ends_in_callable(name) {
            true => Ok(()),
            false => wrong(&with_callable(name)),
        };
    };
    let attribute = callable.split('(').next().unwrap_or_default();
    let is_call = callable.contains('(');
    if callable.trim().is_empty() && is_module(module) {
        return wrong(&format!("{module}:application"));
    }
    if attribute.is_empty()
        || attribute.contains([':', '/'])
        || is_call != callable.trim_end().ends_with(')')
        || module.is_empty()
    {
        return wrong("mysite.wsgi:application\", or \"mysite:create_app()");
    }
    if !is_module(module) || module.ends_with(".py") {
        return wrong(&format!("{}:{callable}", dotted(module)));
    }
    Ok(())
}

/// Whether it can only be meant as an address to listen on.
fn is_address(text: &str) -> bool {
    let is_number = |text: &str| !text.is_empty() && text.bytes().all(|byte| byte.is_ascii_digit());
    let has_port = text
        .rsplit_once(':')
        .is_some_and(|(_, port)| is_number(port));
    has_port || text.starts_with("unix:")
}

/// Whether it can name a module: parts with dots in between.
fn is_module(text: &str) -> bool {
    let is_part = |part: &str| {
        !part.is_empty() && !part.contains(|c: char| c == '/' || c.is_whitespace() || c == '(')
    };
    text.split('.').all(is_part)
}

/// The module of a file.
fn dotted(path: &str) -> String {
    let path = path.trim();
    let path = path.strip_suffix(".py").unwrap_or(path);
    let parts: Vec<_> = path
        .split(['/', '.'])
        .filter(|part| !part.is_empty())
        .collect();
    parts.join(".")
}

/// A module, or a path with dots throughout, with a callable.
fn with_callable(text: &str) -> String {
    let path = dotted(text);
    if !is_module(&path) {
        return "mysite.wsgi:application\", or \"mysite:create_app()".into();
    }
    match path.rsplit_once('.') {
        Some((module, last)) if ends_in_callable(text) => format!("{module}:{last}"),
        _ => format!("{path}:application"),
    }
}

/// Whether what stands after the last dot is what an application is called, and hardly a module.
fn ends_in_callable(text: &str) -> bool {
    let last = text.rsplit_once('.').map(|(_, last)| last);
    last.is_some_and(|last| USUAL.contains(&last)) && !text.contains('/')
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_module_and_a_callable_or_a_call() {
        for name in [
            "a:b",
            "mysite.wsgi:application",
            "my-site:app",
            "a:b.c",
            "a:f()",
            "a:f('x:y/z', b=[1])",
            "a:f ( )",
            "größe:anwendung",
            "app",
            "mysite.wsgi",
        ] {
            assert_eq!(check(name), Ok(()), "{name}");
        }
    }

    #[test]
    fn an_address_and_a_module_for_asgi_are_answered_with_the_line_to_write() {
        for (name, written) in [
            ("127.0.0.1:8000", "listen = [\"127.0.0.1:8000\"]"),
            ("[::1]:8000", "listen = [\"[::1]:8000\"]"),
            ("unix:/run/web.sock", "listen = [\"unix:/run/web.sock\"]"),
            (
                "mysite.asgi:application",
                "write \"mysite.wsgi:application\"",
            ),
            ("mysite.asgi", "\"mysite.asgi:application\"] and ready"),
        ] {
            let complaint = check(name).expect_err(name);
            assert!(complaint.contains(written), "{name}: {complaint}");
        }
        assert_eq!(check("asgi_to_wsgi:app"), Ok(()));
        assert_eq!(check("asgi:app"), Ok(()), "only the start can tell");
    }

    #[test]
    fn what_is_neither_is_answered_with_what_to_write() {
        for (name, written) in [
            (
                "",
                "\"mysite.wsgi:application\", or \"mysite:create_app()\"",
            ),
            ("app.py", "\"app:application\""),
            ("app.application", "\"app:application\""),
            ("mysite.app", "\"mysite:app\""),
            ("src/app.py", "\"src.app:application\""),
            ("./src/app.py:app", "\"src.app:app\""),
            ("src/app:app", "\"src.app:app\""),
            ("app:", "\"app:application\""),
            (":app", "\"mysite.wsgi:application\""),
            ("a:b:c", "\"mysite.wsgi:application\""),
            ("a:f(", "\"mysite:create_app()\""),
            ("a:()", "\"mysite:create_app()\""),
            ("create_app()", "\"mysite:create_app()\""),
            ("my app:x", "must be"),
            (".app:x", "\"app:x\""),
            ("a.py:app", "\"a:app\""),
            ("wsgi.py:application", "\"wsgi:application\""),
        ] {
            let complaint = check(name).expect_err(name);
            assert!(complaint.contains(written), "{name}: {complaint}");
            assert!(complaint.contains(&format!("not {name:?}")), "{complaint}");
        }
    }
}
