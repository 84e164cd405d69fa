//! Requests run on the loop's thread. The loop is lent to the exchange meanwhile.

use super::{Answer, Engine};
use crate::exchange::Exchange;
use crate::message::body::Body;
use crate::message::response::Response;
use crate::net::transport::Transport;
use crate::serve::client::Client;
use crate::serve::core::{Core, Lent};
use crate::serve::handler::{Handler, Observer};

pub(crate) struct Inline<'a, H>(pub &'a mut H);

impl<H: Handler> Engine for Inline<'_, H> {
    fn wait<R: Send>(&mut self, wait: impl FnOnce() -> R + Send) -> R {
        self.0.idle(wait)
    }

    fn submit<O: Observer, T: Transport>(
        &mut self,
        core: &mut Lent<Core<O, T>>,
        key: u64,
        client: Client<T>,
        body: Body,
        response: Response,
    ) -> (Client<T>, Option<Answer>) {
        let Client { connection, link } = client;
        let origin = link.origin;
        let mut lent = core.lend();
        lent.begin(key, link, connection.has_input());
        let exchange = Exchange::new(response, lent);
        let exchange = self.0.call(connection.request(), &origin, body, exchange);
        let (response, outlet, part) = exchange.into_parts();
        core.give_back(outlet);
        let link = core.finish();
        let client = Client { connection, link };
        (client, Some(Answer { response, part }))
    }
}
