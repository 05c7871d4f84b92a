//! From a file to an engine that can be stepped.

use std::path::Path;
use std::sync::Arc;

use kernels::{Cpu, Isa, KvPool};
use sys::Mapped;
use sys::disk::{Disk, RealDisk};
use types::Hash;

use super::lower::TiersBelow;
use super::pool::Pool;
use super::{Engine, EngineConfig, EngineInfo, LoadError};
use crate::blocks::{BLOCK_TOKENS, Blocks};
use crate::model::decoder::{Decoder, Shape};
use crate::model::gguf::Gguf;
use crate::prefix::Naming;
use crate::scheduler::Scheduler;
use crate::text::TextModel;
use crate::tiers::{Tiers, TiersConfig};

/// Raised whenever a change of the arithmetic changes any bit of any result.
const KERNEL_FAMILY: &str = "cpu-1";
/// Blocks on their way to or from the disk, in memory.
const STAGING_BLOCKS: usize = 64;
const KV_TYPE: &str = "f16";

impl Engine {
    /// Maps and checks the model file, repacks its weights and reserves the KV pool.
    pub fn load(path: impl AsRef<Path>, config: EngineConfig) -> Result<Engine, LoadError> {
        config.check()?;
        let isa = Isa::pick(config.isa.as_deref())?;
        let file = Mapped::open(&path)?;
        file.will_read_in_order();
        let path = file.path().to_path_buf();
        let gguf = Gguf::parse(&file).map_err(|cause| LoadError::File { path: path.clone(), cause })?;
        let shape =
            Shape::from_gguf(&gguf).map_err(|cause| LoadError::Model { path: path.clone(), cause })?;
        let text =
            TextModel::from_gguf(&gguf).map_err(|cause| LoadError::Text { path: path.clone(), cause })?;
        let blocks = kv_blocks(&config, &shape)?;
        let window = config.window.unwrap_or(shape.window).min(shape.window);
        let reach = window.min(blocks * BLOCK_TOKENS);
        let mut model = Decoder::load(&gguf, reach, config.step_tokens)
            .map_err(|cause| LoadError::Model { path: path.clone(), cause })?;
        model.sketch_output(&gguf, config.sketch_from);
        let kv = Pool::new(KvPool::new(model.kv_layout(), blocks + 1, |bytes| {
            sys::advise_huge(bytes);
        }));
        let model_digest = Hash::of(&file);
        let info = EngineInfo {
            model_digest,
            numerics_id: numerics_id(&model_digest),
            architecture: shape.architecture.name().into(),
            window,
            vocab: shape.vocabulary,
            kv_blocks: blocks,
            isa: isa.to_string(),
            threads: config.threads(),
        };
        tracing::info!(model = %path.display(), isa = %info.isa, threads = info.threads, blocks, "model loaded");
        let policy = crate::evict::policy(&config.eviction, blocks).expect("checked with the other settings");
        let pool = Blocks::with_policy(blocks, policy);
        let scheduler = Scheduler::over(config.limits(window), Naming::new(info.numerics_id), pool);
        let below = open_tiers(&config, info.numerics_id, kv.layout().block_bytes());
        let cpu = new_cpu(isa, &config);
        Ok(Engine::assemble(config, info, Arc::new(text), model, cpu, kv, scheduler, file.len(), below))
    }
}

/// The tiers below the pool, if the settings ask for any. A folder that can't be used costs the disk tier only.
fn open_tiers(config: &EngineConfig, numerics: Hash, block_bytes: usize) -> Option<TiersBelow> {
    if config.host_kv_bytes == 0 && config.disk_kv.is_none() {
        return None;
    }
    let disk = config.disk_kv.as_ref().and_then(|disk| match RealDisk::private(&disk.folder) {
        Ok(disk) => Some(Box::new(disk) as Box<dyn Disk>),
        Err(error) => {
            tracing::error!(%error, "no disk tier for KV blocks; the engine goes on without it");
            None
        }
    });
    let (disk_bytes, keep_bytes_s) =
        config.disk_kv.as_ref().map_or((0, 0), |disk| (disk.bytes, disk.bytes_s));
    let tiers = TiersConfig {
        numerics,
        block_bytes,
        host_bytes: config.host_kv_bytes,
        disk_bytes,
        staging_blocks: STAGING_BLOCKS,
        keep_bytes_s,
    };
    Some(TiersBelow::new(Tiers::open(tiers, disk)))
}

/// Lets the calling thread give way and pins it, as the settings say. Refusals are logged, not fatal.
pub(super) fn settle(config: &EngineConfig, thread: usize) {
    let lowered = if config.low_priority { sys::lower_priority() } else { Ok(()) };
    let pinned = match config.cores.len() {
        0 => Ok(()),
        count => sys::pin_to_cores(&[config.cores[thread % count]]),
    };
    for error in [lowered, pinned].into_iter().filter_map(Result::err) {
        tracing::warn!(%error, thread, "compute thread keeps its defaults");
    }
}

fn new_cpu(isa: Isa, config: &EngineConfig) -> Cpu {
    let settings = config.clone();
    Cpu::new(isa, config.threads(), move |thread| settle(&settings, thread))
}

fn kv_blocks(config: &EngineConfig, shape: &Shape) -> Result<usize, LoadError> {
    let block_bytes = shape.kv_layout().block_bytes();
    let blocks = (config.kv_bytes / block_bytes).min(u32::MAX as usize - 2);
    if blocks < 2 {
        return Err(LoadError::Kv { kv_bytes: config.kv_bytes, needed: 2 * block_bytes });
    }
    Ok(blocks)
}

fn numerics_id(model_digest: &Hash) -> Hash {
    Hash::of_parts(&[&model_digest.0, KERNEL_FAMILY.as_bytes(), KV_TYPE.as_bytes()])
}
