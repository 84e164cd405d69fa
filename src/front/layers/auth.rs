//! `basic_auth`: who is served that shows a user and a password (RFC 7617).
//!
//! A password takes a tenth of a second to check, by design. So that is done on threads of its own ([`checking`]), and what was right is known for
//! a while ([`known`]). A request whose password is not known waits, with its body unread.

use std::collections::BTreeMap;
use std::fmt;
use std::sync::Arc;

use base64ct::{Base64, Encoding as _};
use preforkd_http::Request;
use preforkd_worker::layers::User;
use zeroize::Zeroizing;

use self::known::{Key, Secret};
use self::passwords::cost;

pub mod checking;
pub mod known;
mod passwords;

/// The users of a site or route.
#[derive(Debug)]
pub struct Users {
    /// The value of `WWW-Authenticate`.
    challenge: String,
    hashes: BTreeMap<Vec<u8>, Arc<str>>,
    /// What the password of somebody unknown is compared with, so that it takes as long.
    decoy: Arc<str>,
}

/// A password to compare with a hash.
#[derive(Clone)]
pub struct Job {
    /// What tells it from others.
    pub key: Key,
    hash: Arc<str>,
    password: Zeroizing<Vec<u8>>,
    /// The user exists.
    is_known: bool,
}

/// What a client shows.
pub struct Credentials {
    /// The user.
    pub user: Vec<u8>,
    password: Zeroizing<Vec<u8>>,
}

impl Users {
    /// Of these settings.
    pub fn new(realm: &str, users: &[User]) -> Self {
        let hash = |user: &User| (user.name.as_bytes().to_vec(), Arc::from(&*user.hash));
        let hashes: BTreeMap<Vec<u8>, Arc<str>> = users.iter().map(hash).collect();
        let dearest = hashes.values().max_by_key(|hash| cost(hash));
        Self {
            challenge: format!("Basic realm=\"{realm}\", charset=\"UTF-8\""),
            decoy: dearest.cloned().unwrap_or_else(|| "".into()),
            hashes,
        }
    }

    /// What a client is told that shows nothing, or something wrong.
    pub fn challenge(&self) -> &str {
        &self.challenge
    }

    /// What is to be compared for these.
    pub fn job(&self, credentials: &Credentials, secret: &Secret) -> Job {
        let hash = self.hashes.get(&credentials.user);
        let is_known = hash.is_some();
        let hash = hash.unwrap_or(&self.decoy);
        let parts = [
            hash.as_bytes(),
            &credentials.user,
            &credentials.password,
            &[u8::from(is_known)],
        ];
        Job {
            key: secret.key(&parts),
            hash: hash.clone(),
            password: credentials.password.clone(),
            is_known,
        }
    }
}

impl Job {
    /// Whether the password is right. It takes as long for somebody unknown.
    pub fn run(&self) -> bool {
        let is_right = passwords::is_right(&self.hash, &self.password);
        is_right && self.is_known
    }
}

/// Shows no password.
impl fmt::Debug for Job {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Job").finish_non_exhaustive()
    }
}

impl Credentials {
    /// What a request shows, if it does so once and in a valid form.
    pub fn read(request: Request<'_>) -> Option<Self> {
        let mut fields = request.fields();
        let mut values = fields
            .by_ref()
            .filter(|(name, _)| name.eq_ignore_ascii_case(b"authorization"));
        let (_, value) = values.next()?;
        match values.next() {
            Some(_) => None,
            None => Self::parse(value),
        }
    }

    fn parse(value: &[u8]) -> Option<Self> {
        let text = str::from_utf8(value).ok()?;
        let (scheme, encoded) = text.split_once(' ')?;
        if !scheme.eq_ignore_ascii_case("basic") {
            return None;
        }
        let decoded = Zeroizing::new(Base64::decode_vec(encoded.trim_matches(' ')).ok()?);
        let colon = decoded.iter().position(|&b| b == b':')?;
        let (user, password) = (&decoded[..colon], &decoded[colon + 1..]);
        // RFC 7617 section 2.
        let is_text = !decoded.iter().any(u8::is_ascii_control);
        (is_text && !user.is_empty()).then(|| Self {
            user: user.to_vec(),
            password: Zeroizing::new(password.to_vec()),
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn credentials_have_one_form() {
        let read = |value: &str| {
            let found = Credentials::parse(value.as_bytes())?;
            let shown = [&found.user[..], b"|", &found.password].concat();
            Some(String::from_utf8(shown).unwrap())
        };
        let basic = |text: &str| format!("Basic {}", Base64::encode_string(text.as_bytes()));
        assert_eq!(read(&basic("ann:pa:ss")).as_deref(), Some("ann|pa:ss"));
        assert_eq!(read(&basic("ann:")).as_deref(), Some("ann|"));
        assert_eq!(read(&basic("än:ß")).as_deref(), Some("än|ß"));
        let spelled = basic("a:b").replace("Basic ", "bAsIc   ");
        assert_eq!(read(&spelled).as_deref(), Some("a|b"));
        for wrong in [
            basic("ann"),
            basic(":x"),
            basic("a\n:x"),
            basic("a:x\0"),
            basic("a:b").trim_end_matches('=').to_owned() + "!",
            basic("a:b").replace("Basic", "Bearer"),
            "Basic".to_owned(),
            String::new(),
        ] {
            assert_eq!(read(&wrong), None, "{wrong:?}");
        }
    }

    #[test]
    fn each_user_has_a_password_and_nobody_else_has_any() {
        let hash = |password: &str, cost| bcrypt_hash(password, cost);
        let user = |name: &str, password: &str, cost| User {
            name: name.into(),
            hash: hash(password, cost),
        };
        let users = Users::new("x", &[user("ann", "one", 4), user("bob", "two", 5)]);
        assert_eq!(cost(&users.decoy), cost(&hash("", 5)));
        let secret = Secret::new().unwrap();
        let job = |user: &str, password: &str| {
            let credentials = Credentials {
                user: user.into(),
                password: Zeroizing::new(password.into()),
            };
            users.job(&credentials, &secret)
        };
        for (user, password, is_right) in [
            ("ann", "one", true),
            ("bob", "two", true),
            ("ann", "two", false),
            ("ann", "", false),
            ("Ann", "one", false),
            // That of the decoy.
            ("eve", "two", false),
        ] {
            assert_eq!(job(user, password).run(), is_right, "{user} {password}");
        }
        assert_eq!(job("ann", "one").key, job("ann", "one").key);
        assert_ne!(job("ann", "one").key, job("anno", "ne").key);
        assert_ne!(job("eve", "two").key, job("bob", "two").key);
        assert!(!format!("{:?}", job("ann", "one")).contains("one"));
    }

    fn bcrypt_hash(password: &str, cost: u32) -> String {
        let salt = [7; 16];
        bcrypt::hash_with_salt(password, cost, salt)
            .unwrap()
            .to_string()
    }
}
