//! Which route of a site a request takes: the longest path whose conditions hold.

use preforkd_http::Request;
use preforkd_worker::front;

use crate::path::{self, Normal};

/// A route, compiled. Its target is at the same place in the settings of the site.
#[derive(Debug)]
struct Route {
    /// In the form of [`Normal`].
    path: Vec<u8>,
    methods: Vec<Vec<u8>>,
    /// Names of fields in lower case, and their values; `None` is any value.
    headers: Vec<(Vec<u8>, Option<Vec<u8>>)>,
    number: usize,
}

/// The routes of a site, the longest path first; of those with the same path, in the order of the configuration.
#[derive(Debug)]
pub struct Routes(Vec<Route>);

impl Routes {
    /// Compiles routes.
    pub fn new(routes: &[front::Route]) -> Self {
        let compile = |(number, route): (usize, &front::Route)| Route {
            path: path::normal(route.path.as_bytes()).bytes().to_vec(),
            methods: route
                .methods
                .iter()
                .map(|name| name.as_str().into())
                .collect(),
            headers: route.headers.iter().map(condition).collect(),
            number,
        };
        let mut all: Vec<_> = routes.iter().enumerate().map(compile).collect();
        all.sort_by_key(|route| std::cmp::Reverse(route.path.len()));
        Self(all)
    }

    /// The numbers of the routes that a request may take, the first one first: the next one counts if a folder does not have the file.
    pub fn of<'a>(
        &'a self,
        path: &'a Normal,
        request: Request<'a>,
    ) -> impl Iterator<Item = usize> + 'a {
        let below = self.0.iter();
        let below = below.filter(|route| path::begins_with(path.bytes(), &route.path));
        let taken = below.filter(move |route| route.holds(request));
        taken.map(|route| route.number)
    }

    /// Where what follows the path of a route begins in the path as sent.
    pub fn after(&self, number: usize, path: &Normal) -> Option<usize> {
        let route = self.0.iter().find(|route| route.number == number)?;
        path.after(&route.path)
    }
}

impl Route {
    fn holds(&self, request: Request<'_>) -> bool {
        let method = request.method();
        let is_meant = |name: &Vec<u8>| {
            // RFC 9110 section 9.3.2: HEAD is GET without the content.
            name == method || name == b"GET" && method == b"HEAD"
        };
        (self.methods.is_empty() || self.methods.iter().any(is_meant))
            && self.headers.iter().all(|(name, wanted)| {
                let mut values = request
                    .fields()
                    .filter(|(field, _)| field.eq_ignore_ascii_case(name));
                values.any(|(_, value)| wanted.as_ref().is_none_or(|wanted| wanted == value))
            })
    }
}

fn condition((name, value): (&String, &String)) -> (Vec<u8>, Option<Vec<u8>>) {
    let value = (value != "*").then(|| value.as_str().into());
    (name.to_ascii_lowercase().into_bytes(), value)
}
