extension ParallelConfiguration {
    /// The grid of ranks for the routed experts, if the experts are divided.
    package var expertMesh: Mesh {
        replicatesExperts ? mesh : Mesh([.pipeline: pipeline, .expert: expert, .expertTensor: expertTensor])
    }

    /// The grid of ranks for KV sharding: consecutive ranks of a data group share the keys.
    private var kvShardingMesh: Mesh {
        Mesh([
            .pipeline: pipeline, .data: data, .context: context * tensor / kvSharding.ranks,
            .kvSharding: kvSharding.ranks,
        ])
    }

    /// Returns the number of ranks that differ along these axes only.
    package func degree(_ axes: Axes) -> Int {
        if axes == .kvSharding { return kvSharding.ranks }
        return dividesExperts(axes) ? expertMesh.degree(axes) : mesh.degree(onMesh(axes))
    }

    /// Returns the ranks that differ from `rank` along these axes only, ascending. They include `rank`.
    ///
    /// - Parameter axes: axes of attention and dense feed-forwards, or axes of the experts, but not of both, because
    ///   the two divide the same ranks differently.
    package func ranks(around rank: Int, along axes: Axes) -> [Int] {
        if axes == .kvSharding { return kvShardingMesh.group(of: rank, along: axes) }
        return dividesExperts(axes)
            ? expertMesh.group(of: rank, along: axes) : mesh.group(of: rank, along: onMesh(axes))
    }

    /// Returns true if axes are of the experts; traps where only some are.
    private func dividesExperts(_ axes: Axes) -> Bool {
        let ofExperts: Axes = [.expert, .expertTensor]
        precondition(axes.isDisjoint(with: ofExperts) || axes.isSubset(of: ofExperts), "\(axes) divide ranks twice")
        return !axes.isDisjoint(with: ofExperts)
    }

    /// Returns the index of a rank among those, from 0.
    package func place(of rank: Int, along axes: Axes) -> Int { ranks(around: rank, along: axes).firstIndex(of: rank)! }

    /// Returns the axes with `dense` replaced by its value here: `tensor`, or nothing.
    package func onMesh(_ axes: Axes) -> Axes {
        guard axes.contains(.dense) else { return axes }
        return denseTensor > 1 ? axes.subtracting(.dense).union(.tensor) : axes.subtracting(.dense)
    }
}
