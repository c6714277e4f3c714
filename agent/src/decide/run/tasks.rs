//! The tasks of a run: those of the file in their order, `finally` last, each with a matrix as its instances.

use std::ops::Range;

use indexmap::IndexSet;
use xene_schemas::{pipeline::PipelineSpec, task::Task};

use crate::matrix::{self, Combination, TASKS};

/// Tasks by their place. A task of the file has a place of its own, `of`.
#[derive(Debug, Default)]
pub(super) struct Tasks {
    names: IndexSet<String>,
    instances: Vec<Instance>,
    groups: Vec<Group>,
    /// How many are not of `finally`.
    ordinary: usize,
}

#[derive(Debug)]
struct Instance {
    of: usize,
    combination: Combination,
}

/// What has become of one task of the file.
#[derive(Debug)]
struct Group {
    name: String,
    members: Range<usize>,
    is_matrix: bool,
    max_parallel: Option<usize>,
}

impl Tasks {
    /// Expands every matrix, and says in a sentence why that can't be done: such a spec was never compiled.
    pub(super) fn of(spec: &PipelineSpec) -> Result<Self, String> {
        let mut tasks = Self::default();
        for (index, (name, task)) in spec.tasks.iter().chain(&*spec.finally).enumerate() {
            if index == spec.tasks.len() {
                tasks.ordinary = tasks.instances.len();
            }
            tasks.add(name.as_str(), task)?;
        }
        if spec.finally.is_empty() {
            tasks.ordinary = tasks.instances.len();
        }
        Ok(tasks)
    }

    fn add(&mut self, name: &str, task: &Task) -> Result<(), String> {
        let (of, start) = (self.groups.len(), self.instances.len());
        let mut insert = |name: String, combination: Combination| {
            if !self.names.insert(name.clone()) {
                return Err(format!("task {name} is in both tasks and finally"));
            }
            self.instances.push(Instance { of, combination });
            Ok(())
        };
        let mut max_parallel = None;
        match &task.matrix {
            None => insert(name.to_owned(), Vec::new())?,
            Some(matrix) => {
                let expanded = matrix::expand(matrix).map_err(|errors| {
                    let why = errors.into_iter().next().map(|error| error.message).unwrap_or_default();
                    format!("the matrix of task {name} can't be run: {why}")
                })?;
                max_parallel = expanded.max_parallel;
                for combination in expanded.combinations {
                    insert(matrix::instance_name(name, &combination), combination)?;
                }
            }
        }
        if self.instances.len() > TASKS {
            return Err(format!("with all instances there are more than {TASKS} tasks"));
        }
        let members = start..self.instances.len();
        self.groups.push(Group { name: name.to_owned(), members, is_matrix: task.matrix.is_some(), max_parallel });
        Ok(())
    }

    pub(super) fn len(&self) -> usize {
        self.instances.len()
    }

    /// Those that are not of `finally`.
    pub(super) fn ordinary(&self) -> Range<usize> {
        0..self.ordinary
    }

    /// Those of `finally`.
    pub(super) fn finally(&self) -> Range<usize> {
        self.ordinary..self.len()
    }

    pub(super) fn name(&self, task: usize) -> &str {
        &self.names[task]
    }

    pub(super) fn find(&self, name: &str) -> Option<usize> {
        self.names.get_index_of(name)
    }

    /// Its place in the file.
    pub(super) fn of_file(&self, task: usize) -> usize {
        self.instances[task].of
    }

    /// The name of the task of the file that it comes from.
    pub(super) fn name_of_file(&self, task: usize) -> &str {
        &self.groups[self.of_file(task)].name
    }

    /// Axis by value; empty without a matrix.
    pub(super) fn combination(&self, task: usize) -> &Combination {
        &self.instances[task].combination
    }

    /// All instances of the task of the file that this one comes from.
    pub(super) fn siblings(&self, task: usize) -> Range<usize> {
        self.groups[self.of_file(task)].members.clone()
    }

    /// How many of its instances run at once, if that is bounded.
    pub(super) fn max_parallel(&self, task: usize) -> Option<usize> {
        self.groups[self.of_file(task)].max_parallel
    }

    /// The instances of a task of the file, and whether it has a matrix.
    pub(super) fn members(&self, of: usize) -> (Range<usize>, bool) {
        (self.groups[of].members.clone(), self.groups[of].is_matrix)
    }

    /// The task of the file of that name.
    pub(super) fn of_name(&self, name: &str) -> Option<usize> {
        // Without a matrix it is its own instance; those with one are few.
        match self.find(name) {
            Some(task) if !self.members(self.of_file(task)).1 => Some(self.of_file(task)),
            _ => self.groups.iter().position(|group| group.is_matrix && group.name == name),
        }
    }

    /// The names of the tasks of the file.
    pub(super) fn names_of_file(&self) -> impl Iterator<Item = &str> {
        self.groups.iter().map(|group| group.name.as_str())
    }
}
