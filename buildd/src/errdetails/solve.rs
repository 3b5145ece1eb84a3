//! What is told of the operation that failed, in protobuf's own JSON.

use std::sync::LazyLock;

use prost::Message as _;
use prost_reflect::{DescriptorPool, DynamicMessage, MessageDescriptor};
use proto::errdefs::Solve;

/// Details travel in a header, and of this one the client has most already: a larger one is left out.
const MAX_BYTES: usize = 1 << 20;

static TYPE: LazyLock<Option<MessageDescriptor>> = LazyLock::new(|| {
    let pool = DescriptorPool::decode(proto::DESCRIPTORS).ok()?;
    pool.get_message_by_name("errdefs.Solve")
});

/// The JSON of a message; `None` for one that is too large.
pub(super) fn json(solve: &Solve) -> Option<Vec<u8>> {
    let bytes = solve.encode_to_vec();
    let message = DynamicMessage::decode(TYPE.clone()?, bytes.as_slice()).ok()?;
    serde_json::to_vec(&message).ok().filter(|json| json.len() <= MAX_BYTES)
}

/// The message that a JSON means.
pub(super) fn message(json: &[u8]) -> Option<Solve> {
    let mut json = serde_json::Deserializer::from_slice(json);
    let message = DynamicMessage::deserialize(TYPE.clone()?, &mut json).ok()?;
    Solve::decode(message.encode_to_vec().as_slice()).ok()
}
