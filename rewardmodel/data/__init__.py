"""How human comparisons are read: rows and where they lie, published formats, a look at them.

The loaders themselves are `rewardmodel.preferences`, `rewardmodel.rankings` and
`rewardmodel.steps`.
"""
