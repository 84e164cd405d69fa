//! The text of the app.toml that `preforkd init` writes, and what to do next.

use std::fmt::Write as _;
use std::path::Path;

use super::project::Project;
use super::scan::Interface;

/// Where the application listens.
const LISTEN: &str = "127.0.0.1:8000";

/// The configuration of a project. `environment` is the virtual environment of the shell.
pub(super) fn text(project: &Project, environment: Option<&str>) -> String {
    let mut text = String::new();
    let python = match (project.environment, environment) {
        (Some(own), _) => Some(format!("{own}/bin/python")),
        (None, Some(shell)) => Some(format!("{shell}/bin/python")),
        (None, None) => None,
    };
    // Writing to a string cannot fail.
    let _ = writeln!(
        text,
        "# Made by `preforkd init` for {}, as {} says. preforkd.toml(5) has all keys.\n\n[app.web]",
        project.framework, project.seen_in
    );
    if !project.folder.is_empty() {
        let _ = writeln!(text, "chdir = {}", quoted(&project.folder));
    }
    match project.interface {
        Interface::Wsgi => wsgi(&mut text, project, python.as_deref()),
        Interface::Asgi => asgi(&mut text, project, python.as_deref()),
    }
    text += "\n# The commands `preforkd status`, `reload` and `stop` find the control socket by themselves in this folder.\n\
             # To have it elsewhere:\n\
             #[master]\n\
             #control = \"/run/preforkd/preforkd.sock\"\n";
    text
}

fn wsgi(text: &mut String, project: &Project, python: Option<&str>) {
    let _ = writeln!(text, "wsgi = {}", quoted(&project.application));
    text.push_str("# The interpreter that has the packages of the project.\n");
    let _ = match python {
        Some(python) => writeln!(text, "python = {}", quoted(python)),
        None => writeln!(text, "#python = \".venv/bin/python\""),
    };
    let _ = writeln!(
        text,
        "# Only this host reaches it here; \"0.0.0.0:8000\" is open to others.\nlisten = [{}]",
        quoted(LISTEN)
    );
    text.push_str(
        "# A worker serves as many requests at a time as it has threads, and a worker for each CPU is \"auto\".\n\
         workers = 2\nthreads = 1\n",
    );
    if project.has_static {
        text.push_str(
            "# Under DEBUG the finders of Django say where static files are, else STATIC_ROOT, which manage.py collectstatic fills.\n\
             static = \"django\"\n",
        );
    }
    text.push_str("# A line for each request.\naccess_log = \"-\"\n");
}

fn asgi(text: &mut String, project: &Project, python: Option<&str>) {
    // The words of `command` are relative to `chdir`.
    let steps = Path::new(&project.folder).components().count();
    let python = python.map(|python| match python.starts_with('/') {
        true => python.to_owned(),
        false => "../".repeat(steps) + python,
    });
    let mut words = match &python {
        Some(python) => vec![python.as_str(), "-m", "uvicorn"],
        None => vec!["uvicorn"],
    };
    words.extend(["--fd", "{fd}"]);
    let application = match project.application.strip_suffix("()") {
        Some(factory) => {
            words.push("--factory");
            factory
        }
        None => &project.application,
    };
    words.push(application);
    let words: Vec<_> = words.into_iter().map(quoted).collect();
    let _ = writeln!(
        text,
        "# An ASGI application is run by an ASGI server, which takes over the socket that {{fd}} stands for.\ncommand = [{}]",
        words.join(", ")
    );
    let _ = writeln!(
        text,
        "# Only this host reaches it here; \"0.0.0.0:8000\" is open to others.\nlisten = [{}]",
        quoted(LISTEN)
    );
    text.push_str(
        "workers = 2\n# The server does not say when it is ready: it is taken to be so after this time.\nready = \"2s\"\n",
    );
}

/// A string of TOML.
fn quoted(text: &str) -> String {
    // The escapes of JSON are escapes of TOML.
    serde_json::Value::from(text.replace('$', "$$")).to_string()
}

/// What is printed at the end. `tried` is what is known after an attempt: what is missing, or why it cannot be served yet.
pub(super) fn next_steps(
    project: &Project,
    file: &Path,
    tried: &Result<Option<String>, String>,
) -> String {
    let mut text = format!(
        "{} serves the {} application {}",
        file.display(),
        project.framework,
        project.application
    );
    let mut steps = Vec::new();
    match tried {
        Ok(None) => text += ".",
        Ok(Some(missing)) => {
            text += ".";
            steps.push(format!("mind: {missing}"));
        }
        Err(why) => {
            text += ", but cannot yet.";
            steps.push(format!("mend this first: {why}"));
        }
    }
    steps.extend([
        format!("preforkd             serves it at http://{LISTEN}/"),
        "preforkd reload      takes new code in, without a gap".to_owned(),
        "preforkd status      shows what runs; preforkd stop ends it".to_owned(),
    ]);
    if project.framework == "Django" {
        steps.push(
            "preforkd check       runs Django's check --deploy, and looks at what the server knows"
                .to_owned(),
        );
    }
    format!("{text}\nNext:\n  {}", steps.join("\n  "))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn project(interface: Interface, application: &str) -> Project {
        Project {
            framework: "Django",
            interface,
            application: application.into(),
            folder: "src".into(),
            seen_in: "manage.py".into(),
            has_static: true,
            environment: Some(".venv"),
        }
    }

    fn parsed(project: &Project, environment: Option<&str>) -> toml::Table {
        let text = text(project, environment);
        let table: toml::Table = text
            .parse()
            .unwrap_or_else(|error| panic!("{error}\n{text}"));
        table["app"]["web"].as_table().expect("a table").clone()
    }

    #[test]
    fn an_application_of_wsgi_is_served_directly() {
        let web = parsed(&project(Interface::Wsgi, "shop.wsgi:application"), None);
        assert_eq!(web["wsgi"].as_str(), Some("shop.wsgi:application"));
        assert_eq!(web["chdir"].as_str(), Some("src"));
        assert_eq!(web["python"].as_str(), Some(".venv/bin/python"));
        assert_eq!(web["static"].as_str(), Some("django"));
        let other = Project {
            environment: None,
            ..project(Interface::Wsgi, "a:b")
        };
        assert_eq!(
            parsed(&other, Some("/opt/v"))["python"].as_str(),
            Some("/opt/v/bin/python")
        );
        assert_eq!(parsed(&other, None).get("python"), None);
    }

    #[test]
    fn an_application_of_asgi_is_run_by_its_server() {
        let command = |application| {
            let web = parsed(&project(Interface::Asgi, application), None);
            let words = web["command"].as_array().expect("words").clone();
            let words: Vec<_> = words
                .iter()
                .filter_map(|word| word.as_str())
                .map(str::to_owned)
                .collect();
            words.join(" ")
        };
        assert_eq!(
            command("api:app"),
            "../.venv/bin/python -m uvicorn --fd {fd} api:app"
        );
        assert_eq!(
            command("api:create_app()"),
            "../.venv/bin/python -m uvicorn --fd {fd} --factory api:create_app"
        );
        let here = Project {
            folder: String::new(),
            ..project(Interface::Asgi, "api:app")
        };
        let web = parsed(&here, None);
        assert_eq!(web["command"][0].as_str(), Some(".venv/bin/python"));
    }

    #[test]
    fn the_end_says_what_to_do_next() {
        let project = project(Interface::Wsgi, "shop.wsgi:application");
        let said = next_steps(
            &project,
            Path::new("/srv/app.toml"),
            &Err("no Django".into()),
        );
        assert!(said.starts_with("/srv/app.toml serves the Django application shop.wsgi:application, but cannot yet.\nNext:\n  mend this first: no Django\n"), "{said}");
        let said = next_steps(&project, Path::new("/srv/app.toml"), &Ok(None));
        assert!(said.contains("Next:\n  preforkd  "), "{said}");
    }
}
