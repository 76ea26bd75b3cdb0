//! A model that is not trained: its parameters and nothing else, for scores and text. It costs a fraction of the
//! memory of one in training, and no time to plan a step.

use super::{Grads, Layout, Model, ModelError, draw_all};
use pawl_engine::{Buffer, Engine};
use pawl_graph::InputKind;
use pawl_recipe::Recipe;

impl Model {
    /// Parameters of `recipe`, all zero until they are written or a checkpoint is loaded.
    pub fn frozen(recipe: Recipe, num_threads: usize) -> Result<Model, ModelError> {
        let mut buffers = Vec::new();
        let mut layout = Layout::default();
        for param in recipe.params() {
            layout.add(InputKind::Param, &param.name, param.shape.iter().product(), &mut buffers);
        }
        buffers.push(Buffer::zeros(1));
        let nowhere = buffers.len() - 1;
        Ok(Model {
            engine: Engine::new(num_threads),
            buffers,
            layout,
            gradients: None,
            update: None,
            tokens: nowhere,
            targets: nowhere,
            rng: None,
            loss: nowhere,
            num_micro: 0,
            micro_tokens: 0,
            scalars: Vec::new(),
            dropout_seed: 0,
            flops_per_step: 0.0,
            grads: Grads::default(),
            grad_norm: None,
            recipe,
        })
    }

    /// Draws every parameter anew from `init_seed`, as [`Model::new`] does.
    pub fn draw(&mut self, init_seed: u64) {
        draw_all(&self.engine, self.recipe.params(), init_seed, &self.layout, &mut self.buffers);
    }

    /// Whether it has nothing to be trained with.
    pub fn is_frozen(&self) -> bool {
        self.gradients.is_none()
    }
}
