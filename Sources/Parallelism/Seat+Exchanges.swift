package import Tensors

/// Communication that edges do not describe.
extension Seat {
    /// Begins to make what this rank wrote to its process's memory visible to the ranks that an edge leads to.
    ///
    /// - Parameters:
    ///   - shared: the number of rows that each rank of the stage has written, at most one for each row that it owns.
    ///   - bytesPerRow: the number of bytes written for each of them.
    ///   - copies: is called only if the ranks live in several processes. It returns what was written, as rows, and a
    ///     function that writes received rows to this process's memory, or returns false if they are invalid.
    package func startSharing(
        _ edge: Edge, counts shared: [Int], bytesPerRow: Int, copies: () -> (rows: View, store: (HostRows) -> Bool)
    ) throws(GroupFailure) -> PendingCollective {
        let axisGroup = axisGroup(edge.axes)
        let counts = scratch.indices(axisGroup.members.count)
        for (place, member) in axisGroup.members.enumerated() { counts[place] = Int32(shared[member]) }
        // All members know all counts, so they agree that there is nothing to wait for: most decode steps complete no
        // entry of many tokens.
        guard let group = axisGroup.group, counts.sum > 0 else { return completed(.none, counts) }
        let began = Meter.now()
        if group.spansProcesses {
            let (rows, store) = copies()
            try group.start(.share(part: rows, counts: counts, store: store))
        } else {
            try group.start(.barrier)
        }
        return PendingCollective(
            name: edge.name, group: group, arriving: .none, counts: counts, bytesPerRow: bytesPerRow,
            spent: Meter.now() - began)
    }

    /// Begins to make rows that this rank wrote to its process's memory visible to the ranks that need them.
    ///
    /// - Parameters:
    ///   - shared: the number of rows that each rank of the stage has written.
    ///   - received: the number of them that this rank needs, for each member of the edge's group.
    ///   - bytesPerRow: the number of bytes written for each row.
    ///   - delivery: is called only if the ranks live in several processes; it returns `Collective.deliver`.
    package func startDelivery(
        _ edge: Edge, counts shared: [Int], received: Indices, bytesPerRow: Int, delivery: () -> Collective
    ) throws(GroupFailure) -> PendingCollective {
        let axisGroup = axisGroup(edge.axes)
        let isEmpty = axisGroup.members.allSatisfy { shared[$0] == 0 }
        guard let group = axisGroup.group, !isEmpty else { return completed(.none, received) }
        let began = Meter.now()
        try group.start(group.spansProcesses ? delivery() : .barrier)
        return PendingCollective(
            name: edge.name, group: group, arriving: .none, counts: received, bytesPerRow: bytesPerRow,
            spent: Meter.now() - began)
    }

    /// Returns, for each member of the group along some axes, the first member in the same process.
    package func leaders(along axes: Axes) -> [Int] { axisGroup(axes).group?.leaders ?? [0] }

    /// Lets every process store the rows that the members of a group have; the group spans processes.
    ///
    /// - Parameters:
    ///   - counts: the number of rows of each member.
    ///   - store: writes rows to the memory of this process; it returns false if they are invalid.
    package func exchangeCopies(
        _ name: StaticString, along axes: Axes, _ part: View, counts: Indices, store: @escaping (HostRows) -> Bool
    ) throws(GroupFailure) {
        guard let group = axisGroup(axes).group, group.spansProcesses else {
            preconditionFailure("\(name) go to several processes")
        }
        let began = Meter.now()
        try wait(in: name) { () throws(GroupFailure) in
            try group.run(.share(part: part, counts: counts, store: store))
        }
        meter.add(name, bytes: (counts.sum - part.rows) * part.rowBytes, since: began)
    }

    /// Begins to send rows to every member of a group and to receive theirs. After `finish`, `PendingCollective.counts`
    /// holds the number of rows from each.
    ///
    /// - Parameters:
    ///   - parts: `counts[0]` rows for the first member, then `counts[1]` for the second, ….
    ///   - expected: the number of rows from each member; another number is reported as that member's failure.
    ///   - expectsAll: whether `expected` is exact; otherwise a member may send fewer rows.
    package func startExchange(
        _ name: StaticString, along axes: Axes, _ parts: View, counts: Indices, expecting expected: Indices,
        expectsAll: Bool = true
    ) throws(GroupFailure) -> PendingCollective {
        guard let group = axisGroup(axes).group else { return completed(parts, counts) }
        let began = Meter.now()
        let (arriving, received) = (scratch.rows(expected.sum, parts.columns), scratch.indices(group.size))
        try group.start(.allToAll(parts: parts, counts: counts, received: arriving, receivedCounts: received))
        return PendingCollective(
            name: name, group: group, arriving: arriving, counts: received, expected: expected, expectsAll: expectsAll,
            axes: axes, bytesPerRow: parts.rowBytes, spent: Meter.now() - began)
    }

    /// Returns the same count for each of the ranks along some axes.
    package func counts(_ count: Int, along axes: Axes) -> Indices {
        let counts = scratch.indices(degree(axes))
        counts.fill(Int32(count))
        return counts
    }

    /// Returns every member's rows, one member after the other; `counts` holds the number of rows of each.
    package func gather(
        _ name: StaticString, along axes: Axes, _ part: View, counts: Indices
    ) throws(GroupFailure) -> View {
        guard let group = axisGroup(axes).group else { return part }
        let began = Meter.now()
        let whole = scratch.rows(counts.sum, part.columns)
        try wait(in: name) { () throws(GroupFailure) in
            try group.run(.allGather(part: part, counts: counts, whole: whole))
        }
        meter.add(name, bytes: (whole.rows - part.rows) * part.rowBytes, since: began)
        return whole
    }
}
