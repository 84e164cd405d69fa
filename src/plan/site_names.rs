//! `hosts`: the names of a site, and which of them two sites claim.

use std::collections::BTreeMap;
use std::net::{Ipv4Addr, Ipv6Addr};

use toml::Spanned;

use crate::config::{Place, Site};

/// What sites claim of a listener, with the name of the site.
#[derive(Debug, Default)]
pub(super) struct Claims(BTreeMap<(String, Option<String>), String>);

impl Claims {
    /// Notes that a site takes a host, or all that is left, at these listeners.
    pub fn add(
        &mut self,
        name: &Spanned<String>,
        site: &Site,
        hosts: &[String],
        listeners: &[String],
    ) -> Result<(), Place> {
        for listener in listeners {
            if hosts.is_empty() {
                let claim = (listener.clone(), None);
                if let Some(other) = self.0.insert(claim, name.get_ref().clone()) {
                    let message = format!(
                        "[site.{}] and [site.{other}] both have no `hosts`, at {listener}: one site takes what no other takes there (add `hosts` to one of them)",
                        name.get_ref()
                    );
                    return Err(Place::at(name.span(), message));
                }
            }
            for (host, written) in hosts.iter().zip(&*site.hosts) {
                let claim = (listener.clone(), Some(host.clone()));
                let Some(other) = self.0.insert(claim, name.get_ref().clone()) else {
                    continue;
                };
                let message = match other == *name.get_ref() {
                    true => format!("hosts: \"{host}\" is there twice (remove one)"),
                    false => format!(
                        "hosts: \"{host}\" is that of [site.{other}] too, at {listener} (remove it from one of them)"
                    ),
                };
                return Err(Place::at(written.span(), message));
            }
        }
        Ok(())
    }
}

/// The hosts as the front compares them.
pub(super) fn hosts(site: &Site) -> Result<Vec<String>, Place> {
    let read = |host: &Spanned<String>| {
        canonical(host.get_ref()).map_err(|why| Place::at(host.span(), format!("hosts: {why}")))
    };
    site.hosts.iter().map(read).collect()
}

/// A host in lower case, without a trailing dot; an address in its usual form.
fn canonical(written: &str) -> Result<String, String> {
    let wrong = |hint: &str| Err(format!("\"{written}\" is not a host ({hint})"));
    let literal = written
        .strip_prefix('[')
        .and_then(|rest| rest.strip_suffix(']'));
    if let Ok(address) = literal.unwrap_or(written).parse::<Ipv6Addr>() {
        return Ok(address.to_string());
    }
    if let Ok(address) = written.parse::<Ipv4Addr>() {
        return Ok(address.to_string());
    }
    let lower = written.to_ascii_lowercase();
    let name = lower.strip_suffix('.').unwrap_or(&lower);
    if name == "*" || name == "_" {
        return wrong("leave `hosts` out for the site that takes all hosts");
    }
    if let Some((_, rest)) = name.split_once("://") {
        let host = rest.split('/').next().unwrap_or_default();
        return wrong(&format!("write it without the scheme: \"{host}\""));
    }
    if let Some((host, _)) = name.split_once(':') {
        return wrong(&format!("write it without the port: \"{host}\""));
    }
    if !name.is_ascii() {
        return wrong("write it as it is sent, with a label that begins with \"xn--\"");
    }
    let bare = name.strip_prefix("*.").unwrap_or(name);
    if bare.contains('*') {
        return wrong("\"*.\" can stand at the beginning only: \"*.example.com\"");
    }
    let is_label = |label: &str| {
        let valid = |b: u8| b.is_ascii_alphanumeric() || b"-_".contains(&b);
        !label.is_empty() && label.len() <= 63 && label.bytes().all(valid)
    };
    if !bare.split('.').all(is_label) {
        return wrong("write for example \"www.example.com\" or \"*.example.com\"");
    }
    Ok(name.to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn hosts_have_one_form() {
        for (written, form) in [
            ("Shop.Example.COM.", "shop.example.com"),
            ("*.example.com", "*.example.com"),
            ("localhost", "localhost"),
            ("[0::1]", "::1"),
            ("::1", "::1"),
            ("127.0.0.1", "127.0.0.1"),
            ("xn--bcher-kva.example", "xn--bcher-kva.example"),
        ] {
            assert_eq!(canonical(written).as_deref(), Ok(form), "{written}");
        }
        for (written, hint) in [
            ("*", "leave `hosts` out"),
            ("https://a.example/x", "\"a.example\""),
            ("a.example:80", "\"a.example\""),
            ("bücher.example", "xn--"),
            ("a.*.example", "at the beginning only"),
            ("*a.example", "at the beginning only"),
            ("a..example", "write for example"),
            ("", "write for example"),
            ("a b", "write for example"),
        ] {
            let why = canonical(written).expect_err(written);
            assert!(why.contains(hint), "{why}");
        }
    }
}
