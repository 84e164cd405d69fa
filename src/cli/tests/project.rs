use super::*;

/// What is found in a folder with these files.
fn found(files: &[(&str, &str)]) -> Result<Project, String> {
    let folder = tempfile::tempdir().expect("a folder");
    for (name, text) in files {
        let path = folder.path().join(name);
        std::fs::create_dir_all(path.parent().expect("a folder")).expect("room");
        std::fs::write(path, text).expect("room");
    }
    find(folder.path())
}

const MANAGE: &str = "    os.environ.setdefault('DJANGO_SETTINGS_MODULE', 'shop.settings')\n";
const SETTINGS: &str =
    "INSTALLED_APPS = ['django.contrib.staticfiles']\nWSGI_APPLICATION = 'shop.wsgi.application'\n";

#[test]
fn a_django_project_is_known_by_its_manage_py_and_its_settings() {
    let project = found(&[
        ("manage.py", MANAGE),
        ("shop/settings.py", SETTINGS),
        ("shop/wsgi.py", ""),
        (".venv/bin/python", ""),
    ]);
    let project = project.expect("a project");
    assert_eq!(project.application, "shop.wsgi:application");
    assert_eq!(
        (project.framework, project.interface),
        ("Django", Interface::Wsgi)
    );
    assert_eq!(
        (project.has_static, project.environment),
        (true, Some(".venv"))
    );
    assert_eq!(project.folder, "");

    let split = found(&[
        (
            "src/manage.py",
            "setdefault(\"DJANGO_SETTINGS_MODULE\", \"config.settings.local\")",
        ),
        (
            "src/config/settings/base.py",
            "MIDDLEWARE = ['whitenoise.middleware.X']\nA = 'django.contrib.staticfiles'",
        ),
        ("src/config/settings/local.py", "from .base import *\n"),
        ("src/config/wsgi.py", ""),
    ]);
    let split = split.expect("a project");
    assert_eq!(
        (split.application.as_str(), split.folder.as_str()),
        ("config.wsgi:application", "src")
    );
    assert!(!split.has_static, "WhiteNoise serves them");

    let asgi = found(&[
        ("manage.py", MANAGE),
        ("shop/settings.py", SETTINGS),
        ("shop/asgi.py", ""),
    ]);
    let asgi = asgi.expect("a project");
    assert_eq!(
        (asgi.interface, asgi.application.as_str()),
        (Interface::Asgi, "shop.asgi:application")
    );
}

#[test]
fn other_projects_are_known_by_the_file_that_makes_the_application() {
    for (files, framework, application, folder) in [
        (
            &[("app.py", "app = Flask(__name__)")][..],
            "Flask",
            "app:app",
            "",
        ),
        (
            &[(
                "shop/__init__.py",
                "def create_app():\n    app = Flask('x')\n",
            )],
            "Flask",
            "shop:create_app()",
            "",
        ),
        (
            &[
                (
                    "shop/__init__.py",
                    "def create_app():\n    app = Flask('x')\n",
                ),
                ("tools.py", "x = Flask('x')"),
            ],
            "Flask",
            "tools:x",
            "",
        ),
        (
            &[("src/shop/main.py", "app = FastAPI()")],
            "FastAPI",
            "shop.main:app",
            "src",
        ),
        (
            &[
                (
                    "production.ini",
                    "[app:main]\nuse = egg:shop\npyramid.reload_templates = false",
                ),
                ("development.ini", "[app:main]\npyramid.x = y"),
            ],
            "Pyramid",
            "pyramid.paster:get_app('production.ini')",
            "",
        ),
        (
            &[
                ("venv/app.py", "app = Flask('x')"),
                ("b.py", "app = Bottle()"),
            ],
            "Bottle",
            "b:app",
            "",
        ),
    ] {
        let project = found(files).unwrap_or_else(|error| panic!("{files:?}: {error}"));
        assert_eq!(
            (
                project.framework,
                project.application.as_str(),
                project.folder.as_str()
            ),
            (framework, application, folder),
            "{files:?}"
        );
    }
}

#[test]
fn a_folder_without_an_application_is_answered_with_what_was_looked_for() {
    for files in [
        &[][..],
        &[("x.py", "print(1)")],
        &[("manage.py", "print(1)")],
        &[("tests/app.py", "app = Flask('x')")],
    ] {
        let error = found(files).expect_err("nothing is there");
        assert!(error.contains("--print-config MODULE:CALLABLE"), "{error}");
    }
}
