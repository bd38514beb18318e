import Tensors

/// Servers with caches of different page sizes and shards send each other entries as bytes, exactly as they are stored:
/// for each lane of a key set, the entries in the given order. A packed entry has no slot; both sides know from its
/// position which entry it is.
extension CacheStore {
    /// Where a request's entries of one kind of pages are.
    package struct PageList: Sendable, Equatable {
        /// The pages, in the order of the request's positions.
        package var pages: [Int32]
        /// The index of the first of `pages` among all pages of the request.
        package var first: Int

        package init(_ pages: [Int32], first: Int = 0) {
            self.pages = pages
            self.first = first
        }
    }

    /// Appends the bytes of some of a request's entries, one key set after the other.
    ///
    /// - Returns: false, with nothing appended, if this store does not keep one of the entries.
    package func pack(_ entries: [CacheEntries], into bytes: inout [UInt8]) -> Bool {
        let start = bytes.count
        for part in entries {
            guard format.has(part.set), pack(part.numbers, of: part.set, in: part.pages, into: &bytes) else {
                bytes.removeLast(bytes.count - start)
                return false
            }
        }
        return true
    }

    /// Overwrites some of a request's entries with bytes that `pack` has made of the same entries.
    ///
    /// - Returns: false, with nothing written, if this store does not keep one of the entries, or if there are not
    ///   exactly as many bytes.
    package func unpack(_ bytes: [UInt8], as entries: [CacheEntries]) -> Bool {
        let areKept = entries.allSatisfy {
            format.has($0.set) && runs($0.numbers, of: $0.set, in: $0.pages) != nil
        }
        guard areKept, bytes.count == format.bytes(of: entries) else { return false }
        var next = 0
        for part in entries {
            let end = next + part.numbers.count * format[part.set].bytesPerEntry
            guard unpack(bytes[next..<end], as: part.numbers, of: part.set, in: part.pages) else {
                preconditionFailure("entries of \(part.set) that were there are gone")
            }
            next = end
        }
        return true
    }

    /// Appends the bytes of some of a request's entries.
    ///
    /// - Parameters:
    ///   - entries: the numbers of the entries in the request, ascending.
    ///   - pages: the pages of the set's kind.
    /// - Returns: false, with nothing appended, if this store does not keep one of the entries.
    package func pack(_ entries: [Int], of set: KeySetID, in pages: PageList, into bytes: inout [UInt8]) -> Bool {
        guard let runs = runs(entries, of: set, in: pages) else { return false }
        for lane in lanes(of: set) {
            for run in runs { lane.append(run, to: &bytes) }
        }
        return true
    }

    /// Overwrites some of a request's entries with bytes that `pack` has made of the same entries, in this store or in
    /// another one whose set has the same lanes.
    ///
    /// - Returns: false, with nothing written, if this store does not keep one of the entries, or if there are not
    ///   exactly as many bytes.
    package func unpack(_ bytes: ArraySlice<UInt8>, as entries: [Int], of set: KeySetID, in pages: PageList) -> Bool {
        guard bytes.count == entries.count * format[set].bytesPerEntry, let runs = runs(entries, of: set, in: pages)
        else { return false }
        var next = bytes.startIndex
        for lane in lanes(of: set) {
            for run in runs {
                let end = next + run.count * lane.entryBytes
                lane.overwrite(run, with: bytes[next..<end])
                next = end
            }
        }
        return true
    }

    /// Returns the entries of the set's lanes in which a request's entries are, as runs of consecutive ones; `nil` if
    /// one of them is not kept.
    private func runs(_ entries: [Int], of set: KeySetID, in list: PageList) -> [Range<Int>]? {
        let group = format.group(of: set)
        let (shard, pageSize) = (shard(ofGroup: group), format.groups[group].entriesPerPage)
        let existing = 0..<(format.groups[group].isWindow ? windowPages : pages)
        var runs: [Range<Int>] = []
        for entry in entries {
            let index = entry / pageSize - list.first
            guard entry >= 0, list.pages.indices.contains(index), existing.contains(Int(list.pages[index])),
                let place = shard.entry(of: Int(list.pages[index]) * pageSize + entry % pageSize)
            else { return nil }
            if let last = runs.last, last.upperBound == place {
                runs[runs.count - 1] = last.lowerBound..<place + 1
            } else {
                runs.append(place..<place + 1)
            }
        }
        return runs
    }
}

/// Names some of a request's entries of one key set, and the pages they are in.
package struct CacheEntries: Sendable, Equatable {
    package var set: KeySetID
    /// The numbers of the entries in the request, ascending.
    package var numbers: [Int]
    package var pages: CacheStore.PageList

    package init(_ numbers: [Int], of set: KeySetID, in pages: CacheStore.PageList) {
        self.numbers = numbers
        self.set = set
        self.pages = pages
    }
}

extension CacheFormat {
    /// The number of consecutive layers whose entries a server sends together while it computes later layers: an eighth
    /// of all, rounded up.
    package var layerGroup: Int { (layers.count + 7) / 8 }

    /// Returns whether there is a key set with this identifier.
    package func has(_ set: KeySetID) -> Bool {
        layers.indices.contains(set.layer) && layers[set.layer].indices.contains(set.index)
    }

    /// Returns the number of bytes of some entries, whose key sets exist.
    package func bytes(of entries: [CacheEntries]) -> Int {
        entries.reduce(0) { $0 + $1.numbers.count * self[$1.set].bytesPerEntry }
    }
}
