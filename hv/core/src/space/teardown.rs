//! Taking a space down in bounded slices: every page handed to the caller, every table freed but the roots, which stay,
//! empty, until nobody can find the domain any more.

use super::format::{present, target};
use super::table::{ENTRIES, RadixTable, TableBudget};
use super::{AddressSpace, Flushed, format::TableFormat};
use crate::{domain::Env, ids::Mfn, machine::Machine};
use heapless::Vec;

/// Whether sliced work is done.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
#[must_use = "there may be more to do"]
pub enum Progress {
    /// Call again.
    More,
    /// All done.
    Done,
}

const LEVELS_MAX: usize = 4;

/// A walk over a tree that frees each table when its last entry is dealt with: the tables from the root down to the one
/// being emptied, with the next entry of each. None: it is over.
type Walk = Vec<(Mfn, u64), LEVELS_MAX>;

/// Looks at up to `steps` entries. Returns what is left of them.
fn walk<F: TableFormat, M: Machine>(
    path: &mut Walk,
    env: &Env<'_, M>,
    tree: &RadixTable<F>,
    budget: &mut TableBudget,
    mut steps: u32,
    mut page: impl FnMut(Flushed),
) -> u32 {
    let levels = tree.format.levels() as usize;
    while steps > 0
        && let Some((table, next)) = path.last_mut()
    {
        steps = steps.wrapping_sub(1);
        if *next == ENTRIES {
            let table = *table;
            path.pop();
            if !path.is_empty() {
                budget.free(table, env.frames);
            }
            continue;
        }
        let at = table.at(*next << 3);
        *next = next.wrapping_add(1);
        let entry = env.machine.load_u64(at);
        if !present(entry) {
            continue;
        }
        // Unlinked first: whoever walks the space from here on finds nothing.
        tree.store(at, 0, env.machine);
        if path.len() < levels {
            // There is room for a table of each level.
            let _ = path.push((target(entry), 0));
        } else {
            page(Flushed(tree.format.page(entry)));
        }
    }
    steps
}

/// How far the teardown of a space has come.
#[derive(Debug, Default)]
pub struct Teardown {
    started: bool,
    cpu: Walk,
    iommu: Walk,
}

impl AddressSpace {
    /// Takes the whole space down in slices, looking at up to `steps` entries in each; every page goes to `page`. The
    /// caller has made sure that no CPU and no device uses the space any more; the first slice flushes what the caches
    /// still hold.
    pub fn tear_down<M: Machine>(
        &mut self,
        env: &Env<'_, M>,
        state: &mut Teardown,
        steps: u32,
        page: impl FnMut(Flushed),
    ) -> Progress {
        if !state.started {
            // No CPU runs in the space and no device is attached, so nothing can be cached anew after this.
            env.machine.flush_all(self.domain, self.scope());
            let iommu = self.iommu.iter().map(|tree| (tree.root, 0)).collect();
            *state = Teardown { started: true, cpu: Walk::from_iter([(self.cpu.root, 0)]), iommu };
        }
        let mut left = steps;
        if let Some(iommu) = &self.iommu {
            let same_as_in_the_cpu_table = |page: Flushed| drop(page);
            left = walk(&mut state.iommu, env, iommu, &mut self.budget, left, same_as_in_the_cpu_table);
        }
        walk(&mut state.cpu, env, &self.cpu, &mut self.budget, left, page);
        if state.iommu.is_empty() && state.cpu.is_empty() { Progress::Done } else { Progress::More }
    }
}
