//! A running container and whoever holds its ends: the client on the same host, or the daemon for a client elsewhere.

mod outcome;
mod relay;
mod streams;

pub(crate) use relay::{Ends, Responses, relay, response};
pub(crate) use streams::{Streams, output_pipe};
