//! Sites with `static = "django"`: which applications are asked, and what is known of the others.

use std::collections::BTreeSet;

use super::*;

/// A site of the app `web` with the application `wsgi`, and these lines more.
fn of_web(wsgi: &str, more: &str) -> String {
    format!(
        "[site.a]\nlisten = '127.0.0.1:80'\nstatic = 'django'\napp = 'web'\n[front]\nuser = 'www'\n[app.api]\ncommand = 'celery'\n[app.web]\nwsgi = '{wsgi}'\nuser = 'www'\n{more}"
    )
}

/// What is found for a release about these apps, while `running` runs.
fn found(text: &str, about: &[&str], running: &Plan) -> Result<Plan, String> {
    let host = Invented {
        ids: (0, 0),
        variables: &[],
        environment: None,
        landlock: 7,
    };
    let about: BTreeSet<_> = about.iter().map(|name| (*name).to_owned()).collect();
    let extent = Extent::part(about, running);
    // It goes to the process that checks the configuration.
    let json = serde_json::to_string(&extent).expect("JSON");
    assert_eq!(serde_json::from_str::<Extent>(&json).expect("JSON"), extent);
    let file = Path::new("/srv/app.toml");
    let plan = Plan::for_release(Given::file(text), file, &host, &extent);
    plan.map_err(|error| error.one_line())
}

#[test]
fn an_application_is_asked_only_in_a_release_of_its_app_or_of_the_front() {
    let running = plan(&of_web("shop.wsgi", ""));
    let broken = of_web("broken:app", "");
    let made = found(&broken, &["api"], &running).expect("nobody was asked");
    assert_eq!(made.apps["front"], running.apps["front"]);
    assert_eq!(running.other_static_files(&made), BTreeSet::new());
    assert_eq!(made.not_asked(), None);
    let refusal = plan_as((0, 0), &broken).expect_err("it cannot be loaded");
    for about in [&["web"][..], &["front"], &["api", "web"], &["api", "front"]] {
        let refused = found(&broken, about, &running).expect_err("it cannot be loaded");
        assert_eq!(refused.replacen("/srv/", "", 1), refusal);
    }
}

#[test]
fn other_static_files_of_an_app_are_found_in_its_release() {
    let running = plan(&of_web("shop.wsgi", ""));
    let same = found(&of_web("other.wsgi", ""), &["web"], &running).expect("fine");
    assert_eq!(running.other_static_files(&same), BTreeSet::new());
    let other = found(&of_web("empty:app", ""), &["web"], &running).expect("fine");
    assert_eq!(running.other_static_files(&other), BTreeSet::from(["web"]));
    assert_eq!(other.other_static_files(&running), BTreeSet::from(["web"]));
}

#[test]
fn what_an_app_that_is_not_required_has_told_stays_if_it_cannot_be_asked_again() {
    let running = plan(&of_web("shop.wsgi", "required = false"));
    let broken = of_web("broken:app", "required = false");
    let made = found(&broken, &["web"], &running).expect("it may fail");
    assert_eq!(running.other_static_files(&made), BTreeSet::new());
    assert_eq!(made.apps["front"].warnings, [] as [&str; 0]);
    let made = found(&broken, &["front"], &running).expect("it may fail");
    assert_eq!(running.other_static_files(&made), BTreeSet::from(["web"]));
    let warned = made.apps["front"].warnings.concat();
    assert!(warned.contains("there is no module broken"), "{warned}");
}

#[test]
fn a_new_site_is_not_known_until_its_app_or_the_front_is_reloaded() {
    let running = plan("[app.web]\nwsgi = 'shop.wsgi'\nlisten = '127.0.0.1:81'");
    let text = of_web("shop.wsgi", "");
    let made = found(&text, &["api"], &running).expect("nobody was asked");
    assert_eq!(
        made.not_asked().as_deref(),
        Some(
            "[site.a] static = \"django\" is new, and app web was not asked where its static files are (reload front too)"
        )
    );
    for about in ["web", "front"] {
        let made = found(&text, &[about], &running).expect("fine");
        assert_eq!(made.not_asked(), None);
        assert_eq!(made.apps["front"], plan(&text).apps["front"]);
    }
    // What another app has told is not of this one.
    let other = text.replace("app = 'web'", "app = 'shop'");
    let other = other.replace("[app.web]", "[app.shop]");
    let made = found(&other, &["api"], &plan(&text)).expect("nobody was asked");
    assert!(made.not_asked().is_some_and(|why| why.contains("app shop")));
}
