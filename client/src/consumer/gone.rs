//! Whether a partition is gone, for a reader whom no coordinator tells: who was asked to read
//! it, or for metadata, may only not have heard of it yet.

use crate::{Client, ClientError};
use ottla_proto::{PartitionId, TopicId};

impl Client {
    /// The partition that has this name now; `None` if none has. Answered with everything that
    /// was committed when it was asked.
    ///
    /// # Errors
    /// No node answers that reaches a majority of the metadata quorum.
    pub(super) async fn certain_id(
        &self,
        topic: &str,
        index: u32,
    ) -> Result<Option<PartitionId>, ClientError> {
        let described = match self.admin().describe_topic(topic).await {
            Ok(described) => described.topic,
            Err(error) if error.is_unknown() => return Ok(None),
            Err(error) => return Err(error),
        };
        let topic = TopicId::from_wire(&described.topic_id)
            .ok_or_else(|| ClientError::UnexpectedAnswer("a topic without an id".to_owned()))?;
        let is_there = (index as usize) < described.partitions.len();
        Ok(is_there.then_some(PartitionId { topic, index }))
    }
}
