extension ParallelConfiguration {
    /// The ranks as the routed experts divide them, where they do.
    package var expertMesh: Mesh {
        replicatesExperts ? mesh : Mesh([.pipeline: pipeline, .expert: expert, .expertTensor: expertTensor])
    }

    /// The ranks as they own keys: consecutive ones of a data group.
    private var kvShardingMesh: Mesh {
        Mesh([
            .pipeline: pipeline, .data: data, .context: context * tensor / kvSharding.ranks,
            .kvSharding: kvSharding.ranks,
        ])
    }

    /// How many ranks differ along these axes only.
    package func degree(_ axes: Axes) -> Int {
        if axes == .kvSharding { return kvSharding.ranks }
        return dividesExperts(axes) ? expertMesh.degree(axes) : mesh.degree(onMesh(axes))
    }

    /// The ranks that differ from `rank` along these axes only, ascending: `rank` is among them.
    ///
    /// - Parameter axes: of attention and plain feed-forwards, or of the experts; the two divide the same ranks
    ///   differently, so not of both.
    package func ranks(around rank: Int, along axes: Axes) -> [Int] {
        if axes == .kvSharding { return kvShardingMesh.group(of: rank, along: axes) }
        return dividesExperts(axes)
            ? expertMesh.group(of: rank, along: axes) : mesh.group(of: rank, along: onMesh(axes))
    }

    /// Whether axes are of the experts; traps where only some are.
    private func dividesExperts(_ axes: Axes) -> Bool {
        let ofExperts: Axes = [.expert, .expertTensor]
        precondition(axes.isDisjoint(with: ofExperts) || axes.isSubset(of: ofExperts), "\(axes) divide ranks twice")
        return !axes.isDisjoint(with: ofExperts)
    }

    /// The place of a rank among those, from 0.
    package func place(of rank: Int, along axes: Axes) -> Int { ranks(around: rank, along: axes).firstIndex(of: rank)! }

    /// The same axes with `dense` as what it is here: `tensor`, or nothing.
    package func onMesh(_ axes: Axes) -> Axes {
        guard axes.contains(.dense) else { return axes }
        return denseTensor > 1 ? axes.subtracting(.dense).union(.tensor) : axes.subtracting(.dense)
    }
}
