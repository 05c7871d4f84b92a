//! Cached blocks that leave for another node's engine, or come from one.

use super::{EngineThread, Order, Steps};
use std::sync::Arc;
use tokio::sync::oneshot;

/// The whole blocks of a conversation, by its tokens.
#[derive(Debug, Clone, PartialEq)]
pub struct Chain {
    pub scope: [u8; 32],
    pub class: u8,
    pub tokens: Arc<[u32]>,
}

/// A question about blocks, and where the answer goes.
pub(super) enum Blocks {
    Held { chain: Chain, answer: oneshot::Sender<usize> },
    Out { chain: Chain, from: usize, most: usize, answer: oneshot::Sender<Vec<Vec<u8>>> },
    In { chain: Chain, from: usize, blocks: Vec<Vec<u8>>, answer: oneshot::Sender<usize> },
}

impl Blocks {
    /// Whoever asked may have gone.
    pub(super) fn answer(self, engine: &mut impl Steps) {
        match self {
            Blocks::Held { chain, answer } => _ = answer.send(engine.held(&chain)),
            Blocks::Out { chain, from, most, answer } => {
                _ = answer.send(engine.copy_out(&chain, from, most));
            }
            Blocks::In { chain, from, blocks, answer } => {
                _ = answer.send(engine.copy_in(&chain, from, &blocks));
            }
        }
    }
}

impl EngineThread {
    /// Whole blocks of the chain that are here, from its start without a gap; 0 from an engine that is gone or full.
    pub async fn held(&self, chain: Chain) -> usize {
        self.ask(|answer| Blocks::Held { chain, answer }).await
    }

    /// At most `most` blocks from number `from` on, as far as they are in memory.
    pub async fn copy_out(&self, chain: Chain, from: usize, most: usize) -> Vec<Vec<u8>> {
        self.ask(|answer| Blocks::Out { chain, from, most, answer }).await
    }

    /// Takes blocks from number `from` on; answers how many of them it has now.
    pub async fn copy_in(&self, chain: Chain, from: usize, blocks: Vec<Vec<u8>>) -> usize {
        self.ask(|answer| Blocks::In { chain, from, blocks, answer }).await
    }

    async fn ask<T: Default>(&self, question: impl FnOnce(oneshot::Sender<T>) -> Blocks) -> T {
        let (answer, heard) = oneshot::channel();
        if self.give(Order::Blocks(question(answer))).is_err() {
            return T::default();
        }
        heard.await.unwrap_or_default()
    }
}
