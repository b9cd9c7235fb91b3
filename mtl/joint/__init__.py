"""Joint multi-task baselines: one model trained on several tasks, one head per task."""

from typing import TYPE_CHECKING

from mtl.lazy import exports

if TYPE_CHECKING:
    from mtl.joint.count import count_joint
    from mtl.joint.joint_method import JOINT, JointMethod, Shared
    from mtl.joint.sampler import JointFeed, Sampling, draw
    from mtl.joint.training import build_joint, load_joint, plan_joint, resolve_joint

__all__, __getattr__, __dir__ = exports(
    __name__,
    {
        "joint_method": ["JOINT", "JointMethod", "Shared"],
        "count": ["count_joint"],
        "sampler": ["JointFeed", "Sampling", "draw"],
        "training": ["build_joint", "load_joint", "plan_joint", "resolve_joint"],
    },
)
