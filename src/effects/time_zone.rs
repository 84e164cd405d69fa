//! The data of time zones: the database of the system, and the zone of the machine (tzset(3), localtime(5)).

use std::io::ErrorKind;
use std::path::{Component, Path};

use jiff::tz::TimeZone;

use crate::schedule::Zone;

/// The folder of the database, unless `TZDIR` names another one.
const FOLDER: &str = "/usr/share/zoneinfo";

/// The zone of the machine.
const LOCAL: &str = "/etc/localtime";

/// Finds a zone by name, or the one of this machine.
///
/// # Errors
/// There is none of this name, or it cannot be read.
pub fn find(name: Option<&str>) -> Result<Zone, String> {
    let folder = std::env::var("TZDIR").ok();
    let folder = Path::new(folder.as_deref().unwrap_or(FOLDER));
    match (name, std::env::var("TZ")) {
        (Some(name), _) => named(folder, name),
        (None, Ok(text)) => by_variable(folder, &text),
        (None, Err(_)) => local(Path::new(LOCAL)),
    }
}

fn named(folder: &Path, name: &str) -> Result<Zone, String> {
    let mut parts = Path::new(name).components();
    let is_name = parts.all(|part| matches!(part, Component::Normal(_))) && !name.is_empty();
    let example = "write a name such as \"Europe/Berlin\", or \"UTC\"";
    if !is_name {
        return Err(format!(
            "\"{name}\" is not the name of a time zone ({example})"
        ));
    }
    match (read(name, &folder.join(name)), name) {
        (Ok(zone), _) => Ok(zone),
        // It needs no database.
        (Err(_), "UTC" | "Etc/UTC") => Ok(Zone::Utc),
        (Err(error), _) if error.kind() == ErrorKind::NotFound && folder.is_dir() => {
            let folder = folder.display();
            Err(format!(
                "there is no time zone \"{name}\" in {folder} ({example})"
            ))
        }
        (Err(error), _) => Err(format!(
            "cannot read the time zone \"{name}\" in {}: {error} (install tzdata, or use \"UTC\")",
            folder.display()
        )),
    }
}

/// What the variable TZ says: a name, a path or a rule.
fn by_variable(folder: &Path, text: &str) -> Result<Zone, String> {
    let text = text.strip_prefix(':').unwrap_or(text);
    if text.is_empty() {
        return Ok(Zone::Utc);
    }
    if text.starts_with('/') {
        return read(text, Path::new(text))
            .map_err(|error| format!("cannot read {text}, which the variable TZ names: {error}"));
    }
    named(folder, text).or_else(|error| match TimeZone::posix(text) {
        Ok(_) => Ok(Zone::Rule(text.to_owned())),
        Err(_) => Err(format!("the variable TZ: {error}")),
    })
}

fn local(file: &Path) -> Result<Zone, String> {
    let link = std::fs::read_link(file).unwrap_or_default();
    let link = link.to_string_lossy();
    let name = link.split_once("zoneinfo/").map(|(_, name)| name);
    match read(name.unwrap_or("of this machine"), file) {
        Ok(zone) => Ok(zone),
        Err(error) if error.kind() == ErrorKind::NotFound => Ok(Zone::Utc),
        Err(error) => Err(format!("cannot read {}: {error}", file.display())),
    }
}

fn read(name: &str, file: &Path) -> std::io::Result<Zone> {
    let data = std::fs::read(file)?;
    TimeZone::tzif(name, &data).map_err(|error| std::io::Error::other(error.to_string()))?;
    let name = name.to_owned();
    Ok(Zone::File { name, data })
}

#[cfg(test)]
mod tests {
    use super::*;

    /// UTC in the form of tzfile(5), with the rule of Berlin behind it.
    fn data() -> Vec<u8> {
        let header = |version: u8| {
            let mut header = b"TZif".to_vec();
            header.push(version);
            header.extend([0; 15]);
            for count in [0u32, 0, 0, 0, 1, 4] {
                header.extend(count.to_be_bytes());
            }
            header.extend([0, 0, 0, 0, 0, 0]);
            header.extend(b"UTC\0");
            header
        };
        let mut data = header(b'2');
        data.extend(header(b'2'));
        data.extend(b"\nCET-1CEST,M3.5.0,M10.5.0/3\n");
        data
    }

    #[test]
    fn a_zone_is_found_by_name_path_rule_or_link() {
        let folder = tempfile::tempdir().expect("a folder");
        let file = folder.path().join("zoneinfo/Europe/Berlin");
        std::fs::create_dir_all(file.parent().expect("a folder")).expect("room");
        std::fs::write(&file, data()).expect("room");
        let zones = folder.path().join("zoneinfo");
        let berlin = |name: &str| {
            let name = name.to_owned();
            Ok(Zone::File { name, data: data() })
        };
        assert_eq!(named(&zones, "Europe/Berlin"), berlin("Europe/Berlin"));
        assert_eq!(
            by_variable(&zones, ":Europe/Berlin"),
            berlin("Europe/Berlin")
        );
        let path = file.display().to_string();
        assert_eq!(by_variable(&zones, &path), berlin(&path));
        assert_eq!(by_variable(&zones, ""), Ok(Zone::Utc));
        assert_eq!(by_variable(&zones, "EST5"), Ok(Zone::Rule("EST5".into())));
        assert_eq!(named(&zones, "UTC"), Ok(Zone::Utc));
        let link = folder.path().join("localtime");
        assert_eq!(local(&link), Ok(Zone::Utc));
        std::os::unix::fs::symlink(&file, &link).expect("a link");
        assert_eq!(local(&link), berlin("Europe/Berlin"));
    }

    #[test]
    fn what_is_no_zone_is_refused() {
        let folder = tempfile::tempdir().expect("a folder");
        std::fs::write(folder.path().join("bad"), "nothing").expect("room");
        for (name, part) in [
            ("", "not the name of a time zone"),
            ("/etc/localtime", "not the name of a time zone"),
            ("../bad", "not the name of a time zone"),
            ("Europe/Berlim", "there is no time zone \"Europe/Berlim\""),
            ("bad", "cannot read the time zone \"bad\""),
        ] {
            let error = named(folder.path(), name).expect_err(name);
            assert!(error.contains(part), "{error}");
        }
        let error = by_variable(folder.path(), "Mars/Olympus").expect_err("no zone");
        assert!(error.starts_with("the variable TZ: there is no"), "{error}");
    }
}
