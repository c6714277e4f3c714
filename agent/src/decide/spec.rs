//! Specs as they came: an agent may own thousands of pipelines, and only those that run are looked into.

use std::{ops::Deref, sync::Arc};

use xene_schemas::pipeline::{CompiledPipeline, PipelineFile};

/// A spec that can be read. As bytes it takes a tenth of the memory.
#[derive(Debug)]
pub(super) struct Spec(Box<[u8]>);

impl Spec {
    /// Keeps `bytes` if they are a spec that this version can read.
    pub(super) fn new(bytes: &[u8]) -> Result<(Arc<Self>, CompiledPipeline), serde_json::Error> {
        let pipeline = CompiledPipeline::decode(bytes)?;
        Ok((Arc::new(Self(bytes.into())), pipeline))
    }

    /// The files that travel with it.
    pub(super) fn files(&self) -> Vec<PipelineFile> {
        CompiledPipeline::decode(&self.0).map(|pipeline| pipeline.files).unwrap_or_default()
    }

    /// What it says.
    pub(super) fn read(self: &Arc<Self>) -> Option<ReadSpec> {
        // It could be read when it came.
        let pipeline = CompiledPipeline::decode(&self.0).ok()?;
        Some(ReadSpec { pipeline: Arc::new(pipeline), kept: Arc::clone(self) })
    }
}

/// A spec in use, which keeps it from being forgotten.
#[derive(Debug, Clone)]
pub(super) struct ReadSpec {
    pipeline: Arc<CompiledPipeline>,
    kept: Arc<Spec>,
}

impl ReadSpec {
    pub(super) fn pipeline(&self) -> Arc<CompiledPipeline> {
        Arc::clone(&self.pipeline)
    }

    /// As it is kept.
    pub(super) fn kept(&self) -> Arc<Spec> {
        Arc::clone(&self.kept)
    }
}

impl Deref for ReadSpec {
    type Target = CompiledPipeline;

    fn deref(&self) -> &CompiledPipeline {
        &self.pipeline
    }
}
