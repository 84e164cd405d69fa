//! Whether a response may be given to others, and for how long: RFC 9111 sections 3 and 4, with less freedom than they allow.

use std::time::{Duration, SystemTime};

use preforkd_http::Head;

use super::directives::{Directives, seconds};

/// What a response with such a status means is known, and is all that there is to it.
const STATUSES: [u16; 14] = [
    200, 203, 204, 300, 301, 302, 307, 308, 404, 405, 410, 414, 451, 501,
];

/// Names in `Vary`. A response that depends on more is not stored.
const MOST_NAMES: usize = 16;

/// Fields that the front writes for the application, whatever the client has sent.
const WRITTEN: [&[u8]; 5] = [
    b"forwarded",
    b"x-real-ip",
    b"x-request-id",
    b"remote-user",
    b"authorization",
];

/// What a response allows.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Terms {
    /// Its age when it came, in seconds.
    pub age: u64,
    /// The age up to which it is fresh.
    pub lifetime: u64,
    /// For how long after that it may be used while it is asked for anew.
    pub grace: u64,
    /// It is for those too who have a cookie.
    pub for_cookies: bool,
    /// The fields of the request that it depends on, in lower case.
    pub vary: Vec<Vec<u8>>,
}

impl Terms {
    /// Of a response to a GET with this head, which has come `now`; none if it is not to be given to others. With `has_cookie` the
    /// request had a cookie.
    pub fn of(head: &Head, has_cookie: bool, now: SystemTime) -> Option<Self> {
        let values = |name: &'static [u8]| {
            let fields = head.fields();
            fields
                .filter_map(move |(other, value)| other.eq_ignore_ascii_case(name).then_some(value))
        };
        let has = |name| values(name).next().is_some();
        if !STATUSES.contains(&head.status()) || has(b"set-cookie") || has(b"content-range") {
            return None;
        }
        let said = Directives::of(values(b"cache-control"));
        if said.refuses || said.no_cache {
            return None;
        }
        let only_pragma = has(b"pragma") && !has(b"cache-control");
        if only_pragma {
            return None;
        }
        let date = values(b"date").next().and_then(time).unwrap_or(now);
        let expires = || {
            let value = values(b"expires").next()?;
            // Section 5.3: what is no date is in the past.
            let at = time(value).unwrap_or(SystemTime::UNIX_EPOCH);
            Some(at.duration_since(date).unwrap_or_default().as_secs())
        };
        // Nothing is guessed: without a time of its own, a response is not stored.
        let lifetime = said.s_maxage.or(said.max_age).or_else(expires)?;
        let told = values(b"age")
            .next()
            .map(|value| seconds(value).unwrap_or(lifetime));
        // Section 4.2.3.
        let apparent = now.duration_since(date).unwrap_or(Duration::ZERO).as_secs();
        let age = told.unwrap_or(0).max(apparent);
        let vary = names(values(b"vary"))?;
        let grace = match said.must_revalidate {
            true => 0,
            false => said.stale_while_revalidate.unwrap_or(0),
        };
        let is_for_all = said.public || said.s_maxage.is_some();
        let for_cookies = is_for_all || vary.iter().any(|name| name == b"cookie");
        (age < lifetime && (for_cookies || !has_cookie)).then_some(Self {
            age,
            lifetime,
            grace,
            for_cookies,
            vary,
        })
    }
}

/// The names of the fields in `Vary`; none if it depends on what is not known here.
fn names<'a>(values: impl Iterator<Item = &'a [u8]>) -> Option<Vec<Vec<u8>>> {
    let mut names = Vec::new();
    for name in values.flat_map(|value| value.split(|&byte| byte == b',')) {
        let name = name.trim_ascii().to_ascii_lowercase();
        let is_written = WRITTEN.contains(&&*name) || name.starts_with(b"x-forwarded-");
        if name == b"*" || is_written || names.len() == MOST_NAMES {
            return None;
        }
        if !name.is_empty() && !names.contains(&name) {
            names.push(name);
        }
    }
    Some(names)
}

/// A time in one of the forms of RFC 9110 section 5.6.7.
pub fn time(value: &[u8]) -> Option<SystemTime> {
    httpdate::parse_http_date(str::from_utf8(value).ok()?).ok()
}

#[cfg(test)]
mod tests {
    use preforkd_http::Response;

    use super::*;

    /// 1994-11-06T08:49:37Z.
    const NOW: u64 = 784_111_777;
    const DATE: (&str, &str) = ("Date", "Sun, 06 Nov 1994 08:49:37 GMT");
    const FRESH: (&str, &str) = ("Cache-Control", "max-age=60");

    fn terms_of(status: &str, fields: &[(&str, &str)], has_cookie: bool) -> Option<Terms> {
        let mut response = Response::new(true, false, true);
        response.begin(status.as_bytes()).expect("a status");
        for (name, value) in fields {
            let added = response.field(name.as_bytes(), value.as_bytes());
            added.expect("a field");
        }
        let now = SystemTime::UNIX_EPOCH + Duration::from_secs(NOW);
        Terms::of(response.head(), has_cookie, now)
    }

    fn terms(fields: &[(&str, &str)]) -> Option<Terms> {
        terms_of("200 OK", fields, false)
    }

    #[test]
    fn what_says_that_it_is_fresh_is_stored_for_that_time() {
        let lifetime =
            |fields: &[(&str, &str)]| terms(fields).map(|terms| (terms.lifetime, terms.age));
        assert_eq!(lifetime(&[FRESH]), Some((60, 0)));
        assert_eq!(
            lifetime(&[("Cache-Control", "max-age=60, s-maxage=5")]),
            Some((5, 0))
        );
        let expires = ("Expires", "Sun, 06 Nov 1994 08:51:37 GMT");
        assert_eq!(lifetime(&[DATE, expires]), Some((120, 0)));
        assert_eq!(lifetime(&[DATE, expires, FRESH]), Some((60, 0)));
        assert_eq!(lifetime(&[FRESH, ("Age", "50")]), Some((60, 50)));
        let earlier = ("Date", "Sun, 06 Nov 1994 08:49:27 GMT");
        assert_eq!(lifetime(&[FRESH, earlier, ("Age", "5")]), Some((60, 10)));
    }

    #[test]
    fn what_is_not_for_everybody_is_not_stored() {
        for fields in [
            &[][..],
            &[("Last-Modified", "Sun, 06 Nov 1994 08:49:37 GMT")],
            &[FRESH, ("Set-Cookie", "a=b")],
            &[
                ("Cache-Control", "public, max-age=60"),
                ("Set-Cookie", "a=b"),
            ],
            &[FRESH, ("cache-control", "Private")],
            &[FRESH, ("Cache-Control", "no-cache")],
            &[("Cache-Control", "max-age=0")],
            &[
                ("Pragma", "no-cache"),
                DATE,
                ("Expires", "Sun, 06 Nov 1994 08:51:37 GMT"),
            ],
            &[("Expires", "0")],
            &[("Expires", "Sun, 06 Nov 1994 08:49:37 GMT"), DATE],
            &[FRESH, ("Age", "60")],
            &[FRESH, ("Age", "x")],
            &[FRESH, ("Date", "Sun, 06 Nov 1994 07:49:37 GMT")],
            &[FRESH, ("Vary", "Accept, *")],
            &[FRESH, ("Vary", "X-Forwarded-For")],
            &[FRESH, ("Vary", "Authorization")],
            &[FRESH, ("Content-Range", "bytes 0-1/2")],
        ] {
            assert_eq!(terms(fields), None, "{fields:?}");
        }
        for status in [
            "206 Partial Content",
            "304 Not Modified",
            "500 x",
            "503 x",
            "302 x",
        ] {
            let expected = status.starts_with("302");
            assert_eq!(
                terms_of(status, &[FRESH], false).is_some(),
                expected,
                "{status}"
            );
        }
    }

    #[test]
    fn a_cookie_asks_for_more_than_a_time() {
        for (value, vary, expected) in [
            ("max-age=60", "Accept", None),
            ("max-age=60", "cookie", Some(true)),
            ("max-age=60, public", "Accept", Some(true)),
            ("s-maxage=60", "Accept", Some(true)),
        ] {
            let fields = [("Cache-Control", value), ("Vary", vary)];
            let found = terms_of("200 OK", &fields, true).map(|terms| terms.for_cookies);
            assert_eq!(found, expected, "{value} {vary}");
        }
        let without = terms(&[FRESH]).expect("it is stored");
        assert!(!without.for_cookies);
    }

    #[test]
    fn a_stale_response_is_used_only_if_it_says_so() {
        let grace = |value| terms(&[("Cache-Control", value)]).map(|terms| terms.grace);
        assert_eq!(grace("max-age=1"), Some(0));
        assert_eq!(grace("max-age=1, stale-while-revalidate=30"), Some(30));
        assert_eq!(grace("s-maxage=1, stale-while-revalidate=30"), Some(30));
        assert_eq!(
            grace("max-age=1, stale-while-revalidate=30, must-revalidate"),
            Some(0)
        );
    }
}
